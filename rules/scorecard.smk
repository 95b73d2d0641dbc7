# tables of all experiments -> what our data say of each claim of the paper


rule score_claims:
    input:
        tables=PLAN.paper_tables("a"),
        claims="published/claims-a.yaml",
        published="published/values.csv",
        template="report/scorecard.html",
    output:
        html=f"{ROOT}/scorecard/claims_a.html",
        csv=f"{ROOT}/scorecard/claims_a.csv",
        json=f"{ROOT}/scorecard/claims_a.json",
    log:
        f"{ROOT}/logs/score_claims/claims_a.log",
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=PLAN.score_claims(),
        code=code("score_claims"),
    shell:
        "python scripts/score_claims.py --tables {input.tables} --claims {input.claims} --published {input.published}"
        " --template {input.template}"
        " {params.spec} --html {output.html} --csv {output.csv} --json {output.json} > {log} 2>&1"
