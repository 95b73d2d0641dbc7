# paper B's theory: settings -> simulation -> figure; numpy alone, seconds


rule simulate_mixture:
    output:
        f"{ROOT}/tables/{{mixture}}/manifest.json",
    log:
        f"{ROOT}/logs/simulate_mixture/{{mixture}}.log",
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.simulate_mixture(w.mixture),
        code=code("simulate_mixture"),
    shell:
        "python scripts/simulate_mixture.py {params.spec} --output {output} > {log} 2>&1"


rule plot_mixture:
    input:
        tables=f"{ROOT}/tables/{{mixture}}/manifest.json",
    output:
        pdf=f"{ROOT}/figures/{{mixture}}.pdf",
        png=report(
            f"{ROOT}/figures/{{mixture}}.png",
            caption="../report/mixture.rst",
            category="Paper B",
            labels={"figure": "theory", "experiment": "{mixture}"},
        ),
        csv=f"{ROOT}/figures/{{mixture}}.csv",
    log:
        f"{ROOT}/logs/plot_mixture/{{mixture}}.log",
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_mixture"),
    shell:
        "python scripts/plot_mixture.py --tables {input.tables}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"
