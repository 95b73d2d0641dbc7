# responses -> a prompted LLM's replies (docs/judge.md). Local rules: they talk to an endpoint and compute nothing.


rule judge_preferences:
    input:
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
    output:
        f"{ROOT}/judged/preferences/{CELL}/{{part}}/{{judge}}-{{template}}/manifest.json",
    log:
        f"{ROOT}/logs/judge_preferences/{CELL}/{{part}}/{{judge}}-{{template}}.log",
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        options=lambda w: PLAN.judge_options(w.judge),
    params:
        spec=lambda w: PLAN.judge_preferences(w.judge, w.template, w.part),
        code=code("judge_preferences"),
    shell:
        "python scripts/judge_preferences.py --examples {input.examples} --split {input.split}"
        " {params.spec} {resources.options} --output {output} > {log} 2>&1"


rule judge_comparisons:
    input:
        left=f"{ROOT}/generations/{CELL}/{{evaluation}}/students/{{student}}/{{feedback}}/{{recipe}}/dpo/manifest.json",
        right=f"{ROOT}/generations/{CELL}/{{evaluation}}/students/{{student}}/human/{{recipe}}/dpo/manifest.json",
    output:
        f"{ROOT}/judged/comparisons/{CELL}/{{evaluation}}/students/{{student}}/{{feedback}}/{{recipe}}/dpo/{{judge}}-{{prompts}}/manifest.json",
    log:
        f"{ROOT}/logs/judge_comparisons/{CELL}/{{evaluation}}/{{student}}/{{feedback}}/{{recipe}}/{{judge}}-{{prompts}}.log",
    wildcard_constraints:
        prompts=r"\d+",
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        options=lambda w: PLAN.judge_options(w.judge),
    params:
        spec=lambda w: PLAN.judge_comparisons(
            w,
            f"students/{w.student}/{w.feedback}/{w.recipe}/dpo",
            f"students/{w.student}/human/{w.recipe}/dpo",
            w.judge,
            w.prompts,
        ),
        code=code("judge_comparisons"),
    shell:
        "python scripts/judge_comparisons.py --left {input.left} --right {input.right}"
        " {params.spec} {resources.options} --output {output} > {log} 2>&1"


rule judge_votes:
    input:
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/unlabelled/{{feedback}}/manifest.json",
    output:
        f"{ROOT}/judged/votes/{CELL}/{{feedback}}/{{judge}}-{{pairs}}x{{votes}}/manifest.json",
    log:
        f"{ROOT}/logs/judge_votes/{CELL}/{{feedback}}/{{judge}}-{{pairs}}x{{votes}}.log",
    wildcard_constraints:
        pairs=r"\d+",
        votes=r"\d+",
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        options=lambda w: PLAN.judge_options(w.judge),
    params:
        spec=lambda w: PLAN.judge_votes(w, w.feedback, w.judge, w.pairs, w.votes),
        code=code("judge_votes"),
    shell:
        "python scripts/judge_votes.py --examples {input.examples} --split {input.split} --labels {input.labels}"
        " {params.spec} {resources.options} --output {output} > {log} 2>&1"
