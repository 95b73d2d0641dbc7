# tables -> figures -> report; nothing here reads a model


rule plot_bars:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/bars.rst",
            category="Paper A",
            labels={"figure": "bars", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/plot_bars/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("bars")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_bars"),
    shell:
        "python scripts/plot_bars.py --tables {input.tables} --published {input.published}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule plot_lines:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/lines.rst",
            category="Paper A",
            labels={"figure": "lines", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/plot_lines/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("lines")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_lines"),
    shell:
        "python scripts/plot_lines.py --tables {input.tables} --published {input.published}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule plot_comparisons:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/comparisons.rst",
            category="Paper A",
            labels={"figure": "comparisons", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/plot_comparisons/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("comparisons")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_comparisons"),
    shell:
        "python scripts/plot_comparisons.py --tables {input.tables} --published {input.published}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule plot_similarity:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/similarity.rst",
            category="Paper A",
            labels={"figure": "similarity", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/plot_similarity/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("similarity")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_similarity"),
    shell:
        "python scripts/plot_similarity.py --tables {input.tables} --published {input.published}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule write_table:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        md=f"{ROOT}/figures/{{experiment}}.md",
        html=report(
            f"{ROOT}/figures/{{experiment}}.html",
            caption="../report/table.rst",
            category="Paper A",
            labels={"figure": "table", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/write_table/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("table")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: flags({"layout": PLAN.layout(w.experiment)}),
        code=code("write_table"),
    shell:
        "python scripts/write_table.py --tables {input.tables} --published {input.published} {params.spec}"
        " --md {output.md} --html {output.html} --csv {output.csv} > {log} 2>&1"


rule write_examples:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
    output:
        md=f"{ROOT}/figures/{{experiment}}.md",
        html=report(
            f"{ROOT}/figures/{{experiment}}.html",
            caption="../report/examples.rst",
            category="Paper A",
            labels={"figure": "examples", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/write_examples/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("examples")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("write_examples"),
    shell:
        "python scripts/write_examples.py --tables {input.tables} --published {input.published}"
        " --md {output.md} --html {output.html} --csv {output.csv} > {log} 2>&1"


rule compare_recipes:
    input:
        tables=f"{ROOT}/tables/{{experiment}}/manifest.json",
        published="published/values.csv",
        template=lambda w: PLAN.shown_prompts(w.experiment, BASE),
    output:
        md=f"{ROOT}/figures/{{experiment}}.md",
        html=report(
            f"{ROOT}/figures/{{experiment}}.html",
            caption="../report/recipes.rst",
            category="Paper A",
            labels={"figure": "recipes", "experiment": "{experiment}"},
        ),
        csv=f"{ROOT}/figures/{{experiment}}.csv",
    log:
        f"{ROOT}/logs/compare_recipes/{{experiment}}.log",
    wildcard_constraints:
        experiment=alternatives(PLAN.experiments_with("recipes")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("compare_recipes"),
    shell:
        "python scripts/compare_recipes.py --tables {input.tables} --published {input.published}"
        " --template {input.template}"
        " --md {output.md} --html {output.html} --csv {output.csv} > {log} 2>&1"


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
        tables=PLAN.measured(),
        figures=[path for path in PLAN.figures() if path.endswith((".png", ".html"))],
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
