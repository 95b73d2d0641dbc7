# model -> generations -> gold rewards -> tables


rule generate:
    input:
        model=lambda w: PLAN.run(w, w.run),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
    output:
        f"{ROOT}/generations/{CELL}/{{evaluation}}/{{run}}/manifest.json",
    log:
        f"{ROOT}/logs/generate/{CELL}/{{evaluation}}/{{run}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("generate"),
        more=PLAN.generation_options(),
    params:
        spec=lambda w: PLAN.generate(w, w.evaluation, w.run),
        code=code("generate"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/generate.py"
        " --model {input.model} --examples {input.examples} --split {input.split}"
        " {params.spec} --batch-size {resources.pass_size} {resources.more} --output {output} > {log} 2>&1"


rule score_gold:
    input:
        model=lambda w: PLAN.manifest("models", CONFIG.golds[w.gold].model),
        generations=f"{ROOT}/generations/{CELL}/{{evaluation}}/{{run}}/manifest.json",
    output:
        f"{ROOT}/gold/{CELL}/{{evaluation}}/{{run}}/{{gold}}/manifest.json",
    log:
        f"{ROOT}/logs/score_gold/{CELL}/{{evaluation}}/{{run}}/{{gold}}.log",
    wildcard_constraints:
        gold=alternatives(name for name, entry in CONFIG.golds.items() if entry.model),
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("score_gold"),
    params:
        spec=lambda w: PLAN.score_gold(w, w.run, w.gold),
        code=code("score_gold"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/score_gold.py"
        " --model {input.model} --generations {input.generations}"
        " {params.spec} --batch-tokens {resources.pass_size} --output {output} > {log} 2>&1"


rule score_exact:
    input:
        f"{ROOT}/generations/{CELL}/{{evaluation}}/{{run}}/manifest.json",
    output:
        f"{ROOT}/gold/{CELL}/{{evaluation}}/{{run}}/{{gold}}/manifest.json",
    log:
        f"{ROOT}/logs/score_exact/{CELL}/{{evaluation}}/{{run}}/{{gold}}.log",
    wildcard_constraints:
        gold=alternatives(name for name, entry in CONFIG.golds.items() if entry.world),
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.score_exact(w, w.run, w.gold),
        code=code("score_exact"),
    shell:
        "python scripts/score_exact.py --generations {input} {params.spec} --output {output} > {log} 2>&1"


rule score_similarity:
    input:
        encoder=lambda w: PLAN.manifest("models", w.encoder),
        generations=f"{ROOT}/generations/{CELL}/{{evaluation}}/{{run}}/manifest.json",
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
    output:
        f"{ROOT}/similarity/{CELL}/{{evaluation}}/{{run}}/{{encoder}}-{{pooling}}-{{cut}}/manifest.json",
    log:
        f"{ROOT}/logs/score_similarity/{CELL}/{{evaluation}}/{{run}}/{{encoder}}-{{pooling}}-{{cut}}.log",
    wildcard_constraints:
        pooling="mean|first",
        cut="cut|whole",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("score_similarity"),
    params:
        spec=lambda w: PLAN.score_similarity(w, w.run, w.encoder, w.pooling, w.cut),
        code=code("score_similarity"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/score_similarity.py"
        " --encoder {input.encoder} --generations {input.generations}"
        " --examples {input.examples} --split {input.split}"
        " {params.spec} --batch-tokens {resources.pass_size} --output {output} > {log} 2>&1"


rule summarise:
    input:
        rewards=lambda w: PLAN.rewards(w.experiment),
        responses=lambda w: PLAN.experiment_responses(w.experiment),
        comparisons=lambda w: PLAN.experiment_comparisons(w.experiment),
        votes=lambda w: PLAN.experiment_votes(w.experiment),
        similarities=lambda w: PLAN.experiment_similarities(w.experiment),
        labels=lambda w: PLAN.experiment_labels(w.experiment),
        examples=lambda w: PLAN.experiment_examples(w.experiment),
    output:
        f"{ROOT}/tables/{{experiment}}/manifest.json",
    log:
        f"{ROOT}/logs/summarise/{{experiment}}.log",
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.summarise(w.experiment),
        code=code("summarise"),
    shell:
        "python scripts/summarise.py --rewards {input.rewards} --labels {input.labels} --examples {input.examples}"
        " --responses {input.responses} --comparisons {input.comparisons} --votes {input.votes}"
        " --similarities {input.similarities} {params.spec} --output {output} > {log} 2>&1"
