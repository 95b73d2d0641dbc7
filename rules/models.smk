# tokenizers, pre-training corpora, base models and reward models


rule import_tokenizer:
    input:
        lambda w: PLAN.source(CONFIG.tokenizers[w.tokenizer].source),
    output:
        f"{ROOT}/tokenizers/{{tokenizer}}/manifest.json",
    log:
        f"{ROOT}/logs/import_tokenizer/{{tokenizer}}.log",
    wildcard_constraints:
        tokenizer=alternatives(name for name, entry in CONFIG.tokenizers.items() if entry.source),
    container:
        IMAGES["ml"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.import_tokenizer(w.tokenizer),
        code=code("import_tokenizer"),
    shell:
        "python scripts/import_tokenizer.py --source {input} {params.spec} --output {output} > {log} 2>&1"


rule train_tokenizer:
    input:
        lambda w: PLAN.manifest("corpora", CONFIG.tokenizers[w.tokenizer].corpus),
    output:
        f"{ROOT}/tokenizers/{{tokenizer}}/manifest.json",
    log:
        f"{ROOT}/logs/train_tokenizer/{{tokenizer}}.log",
    wildcard_constraints:
        tokenizer=alternatives(name for name, entry in CONFIG.tokenizers.items() if entry.corpus),
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.train_tokenizer(w.tokenizer),
        code=code("train_tokenizer"),
    shell:
        "python scripts/train_tokenizer.py --corpus {input} {params.spec} --output {output} > {log} 2>&1"


rule build_corpus:
    input:
        examples=lambda w: PLAN.corpus_examples(w.corpus),
    output:
        f"{ROOT}/corpora/{{corpus}}/manifest.json",
    log:
        f"{ROOT}/logs/build_corpus/{{corpus}}.log",
    wildcard_constraints:
        corpus=alternatives(CONFIG.corpora),
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.build_corpus(w.corpus),
        code=code("build_corpus"),
    shell:
        "python scripts/build_corpus.py --examples {input.examples} {params.spec} --output {output} > {log} 2>&1"


rule import_model:
    input:
        lambda w: PLAN.source(CONFIG.models[w.model].source),
    output:
        f"{ROOT}/models/{{model}}/manifest.json",
    log:
        f"{ROOT}/logs/import_model/{{model}}.log",
    wildcard_constraints:
        model=alternatives(name for name, entry in CONFIG.models.items() if entry.source),
    container:
        IMAGES["ml"].container
    resources:
        **LIGHT | {"mem_mb": lambda w: import_mb(CONFIG, w.model)},
    params:
        spec=lambda w: PLAN.import_model(w.model),
        code=code("import_model"),
    shell:
        "python scripts/import_model.py --source {input} {params.spec} --output {output} > {log} 2>&1"


rule pretrain_model:
    input:
        corpus=lambda w: PLAN.manifest("corpora", CONFIG.models[w.model].pretrain.corpus),
        tokenizer=lambda w: PLAN.tokenizer(CONFIG.models[w.model].pretrain.tokenizer),
    output:
        f"{ROOT}/models/{{model}}/manifest.json",
    log:
        f"{ROOT}/logs/pretrain_model/{{model}}.log",
    wildcard_constraints:
        model=alternatives(name for name, entry in CONFIG.models.items() if entry.pretrain),
    priority: 10
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("pretrain_model"),
    params:
        spec=lambda w: PLAN.pretrain_model(w.model),
        code=code("pretrain_model"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/pretrain_model.py"
        " --corpus {input.corpus} --tokenizer {input.tokenizer}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule train_reward_model:
    input:
        model=lambda w: PLAN.manifest("models", CONFIG.models[w.model].reward.base),
        examples=lambda w: PLAN.manifest("filtered", CONFIG.models[w.model].reward.data),
    output:
        f"{ROOT}/models/{{model}}/manifest.json",
    log:
        f"{ROOT}/logs/train_reward_model/{{model}}.log",
    wildcard_constraints:
        model=alternatives(name for name, entry in CONFIG.models.items() if entry.reward),
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("train_reward_model"),
    params:
        spec=lambda w: PLAN.train_reward_model(w.model),
        code=code("train_reward_model"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_reward_model.py"
        " --model {input.model} --examples {input.examples}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"
