# responses -> log-probabilities, rewards or an LLM's replies -> labels, by feedback policy


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


rule reward_responses:
    input:
        model=lambda w: PLAN.response_judge(w.run) if w.run.startswith("golds/") else PLAN.run(w, w.run),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
    output:
        f"{ROOT}/responses/{CELL}/{{part}}/{{run}}/manifest.json",
    log:
        f"{ROOT}/logs/reward_responses/{CELL}/{{part}}/{{run}}.log",
    wildcard_constraints:
        run=f"golds/({alternatives(name for name, entry in CONFIG.golds.items() if entry.model)})|teachers/.+/reward",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("reward_responses"),
    params:
        spec=lambda w: PLAN.reward_responses(w.run, w.part),
        code=code("reward_responses"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/reward_responses.py"
        " --model {input.model} --examples {input.examples} --split {input.split}"
        " {params.spec} --batch-tokens {resources.pass_size} --output {output} > {log} 2>&1"


rule reward_responses_exact:
    input:
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
    output:
        f"{ROOT}/responses/{CELL}/{{part}}/{{run}}/manifest.json",
    log:
        f"{ROOT}/logs/reward_responses_exact/{CELL}/{{part}}/{{run}}.log",
    wildcard_constraints:
        run=f"golds/({alternatives(name for name, entry in CONFIG.golds.items() if entry.world)})",
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.reward_responses_exact(w.run, w.part),
        code=code("reward_responses_exact"),
    shell:
        "python scripts/reward_responses_exact.py --examples {input.examples} --split {input.split}"
        " {params.spec} --output {output} > {log} 2>&1"


rule label_examples:
    input:
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        policy=lambda w: PLAN.feedback_scores(w, w.part, w.feedback, "dpo"),
        reference=lambda w: PLAN.feedback_scores(w, w.part, w.feedback, "sft"),
        rewards=lambda w: PLAN.feedback_rewards(w, w.part, w.feedback),
        preferences=lambda w: PLAN.feedback_preferences(w, w.part, w.feedback),
        labels=lambda w: PLAN.feedback_labels(w, w.part, w.feedback),
    output:
        f"{ROOT}/labels/{CELL}/{{part}}/{{feedback}}/manifest.json",
    log:
        f"{ROOT}/logs/label_examples/{CELL}/{{part}}/{{feedback}}.log",
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.label_examples(w, w.part, w.feedback),
        code=code("label_examples"),
    shell:
        "python scripts/label_examples.py --examples {input.examples} --split {input.split}"
        " --policy-scores {input.policy} --reference-scores {input.reference}"
        " --rewards {input.rewards} --preferences {input.preferences} --labels {input.labels}"
        " {params.spec} --output {output} > {log} 2>&1"
