# responses -> log-probabilities under a model -> labels, by feedback policy


rule score_responses:
    input:
        model=lambda w: PLAN.run(w, w.run),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
    output:
        f"{ROOT}/scores/{CELL}/{{part}}/{{run}}/manifest.json",
    log:
        f"{ROOT}/logs/score_responses/{CELL}/{{part}}/{{run}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("score_responses"),
    params:
        spec=lambda w: PLAN.score_responses(w.run, w.part),
        code=code("score_responses"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/score_responses.py"
        " --model {input.model} --examples {input.examples} --split {input.split}"
        " {params.spec} --batch-tokens {resources.pass_size} --output {output} > {log} 2>&1"


rule label_examples:
    input:
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        policy=lambda w: PLAN.feedback_scores(w, w.part, w.feedback, "dpo"),
        reference=lambda w: PLAN.feedback_scores(w, w.part, w.feedback, "sft"),
    output:
        f"{ROOT}/labels/{CELL}/{{part}}/{{feedback}}/manifest.json",
    log:
        f"{ROOT}/logs/label_examples/{CELL}/{{part}}/{{feedback}}.log",
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.label_examples(w.part, w.feedback),
        code=code("label_examples"),
    shell:
        "python scripts/label_examples.py --examples {input.examples} --split {input.split}"
        " --policy-scores {input.policy} --reference-scores {input.reference}"
        " {params.spec} --output {output} > {log} 2>&1"
