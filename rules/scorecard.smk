# tables of all experiments -> what our data say of each claim of the paper


rule score_claims:
    input:
        tables=lambda w: PLAN.paper_tables(w.paper),
        claims="published/claims-{paper}.yaml",
        published=lambda w: PLAN.published(w.paper),
        template="report/scorecard.html",
    output:
        html=f"{ROOT}/scorecard/claims_{{paper}}.html",
        csv=f"{ROOT}/scorecard/claims_{{paper}}.csv",
        json=f"{ROOT}/scorecard/claims_{{paper}}.json",
    log:
        f"{ROOT}/logs/score_claims/claims_{{paper}}.log",
    wildcard_constraints:
        paper="a|b",
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.score_claims(w.paper),
        code=code("score_claims"),
    shell:
        "python scripts/score_claims.py --tables {input.tables} --claims {input.claims} --published {input.published}"
        " --template {input.template}"
        " {params.spec} --html {output.html} --csv {output.csv} --json {output.json} > {log} 2>&1"
