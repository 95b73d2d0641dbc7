# tables -> figures -> report; nothing here reads a model


rule plot_figure_2a:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/figure_2a.rst",
            category="Paper A",
            labels={"figure": "2a", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/plot_figure_2a/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("figure_2a")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_figure_2a"),
    shell:
        "python scripts/plot_figure_2a.py --tables {input.tables} --published {input.published}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule plot_label_noise:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/label_noise.rst",
            category="Demo world",
            labels={"figure": "label noise", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/plot_label_noise/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("label_noise")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_label_noise"),
    shell:
        "python scripts/plot_label_noise.py --tables {input.tables}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule plot_drops:
    input:
        filtered=f"{ROOT}/filtered/{{data}}/manifest.json",
    output:
        pdf=f"{ROOT}/figures/drops_{{data}}.pdf",
        png=report(
            f"{ROOT}/figures/drops_{{data}}.png",
            caption="../report/drops.rst",
            category="Data",
            labels={"figure": "dropped rows", "experiment": "{data}"},
        ),
        csv=f"{ROOT}/figures/drops_{{data}}.csv",
    log:
        f"{ROOT}/logs/plot_drops/{{data}}.log",
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_drops"),
    shell:
        "python scripts/plot_drops.py --filtered {input.filtered}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule report:
    input:
        tables=PLAN.tables(),
        figures=PLAN.figures("png"),
        filtered=[PLAN.manifest("filtered", data) for data in PLAN.data_sets()],
        template="report/template.html",
    output:
        f"{ROOT}/report.html",
    log:
        f"{ROOT}/logs/report.log",
    localrule: True
    container:
        IMAGES["light"].container
    params:
        spec=flags({"preset": CONFIG.preset}),
        code=code("report"),
    shell:
        "python scripts/report.py --tables {input.tables} --figures {input.figures} --filtered {input.filtered}"
        " --template {input.template} {params.spec} --output {output} > {log} 2>&1"
