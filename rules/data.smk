# raw source -> examples -> length filter -> split (D_l, D_u, test)


rule fetch:
    input:
        lambda w: sources.inputs(PLAN, w.source),
    output:
        f"{CONFIG.resources}/{{source}}/manifest.json",
    log:
        f"{CONFIG.resources}/logs/fetch/{{source}}.log",
    wildcard_constraints:
        source=alternatives(CONFIG.sources),
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        folder=lambda w: PLAN.folder(w.source),
    params:
        spec=lambda w: PLAN.fetch(w.source),
        code=code("fetch"),
    shell:
        "python scripts/fetch.py {params.spec} --folder {resources.folder:q} --output {output} > {log} 2>&1"


rule import_examples:
    input:
        sources=lambda w: PLAN.data_sources(w.data),
    output:
        f"{ROOT}/examples/{{data}}/manifest.json",
    log:
        f"{ROOT}/logs/import_examples/{{data}}.log",
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.import_examples(w.data),
        code=code("import_examples"),
    shell:
        "python scripts/import_examples.py --sources {input.sources} {params.spec} --output {output} > {log} 2>&1"


rule filter_examples:
    input:
        examples=f"{ROOT}/examples/{{data}}/manifest.json",
        tokenizer=lambda w: PLAN.tokenizer(CONFIG.data[w.data].tokenizer),
    output:
        f"{ROOT}/filtered/{{data}}/manifest.json",
    log:
        f"{ROOT}/logs/filter_examples/{{data}}.log",
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.filter_examples(w.data),
        code=code("filter_examples"),
    shell:
        "python scripts/filter_examples.py --examples {input.examples} --tokenizer {input.tokenizer}"
        " {params.spec} --output {output} > {log} 2>&1"


rule split_examples:
    input:
        f"{ROOT}/filtered/{{data}}/manifest.json",
    output:
        f"{ROOT}/splits/{CELL}/manifest.json",
    log:
        f"{ROOT}/logs/split_examples/{CELL}.log",
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.split_examples(w),
        code=code("split_examples"),
    shell:
        "python scripts/split_examples.py --examples {input} {params.spec} --output {output} > {log} 2>&1"
