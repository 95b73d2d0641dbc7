"""How models are tuned: the sections of one training step and of whole recipes."""

from __future__ import annotations

from fractions import Fraction as FractionOf
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from w2s.sections import (
    SHARE,
    Count,
    Fraction,
    Loss,
    Name,
    NonNegative,
    Positive,
    Section,
    Step,
    Whole,
    exactly_one,
)


class Training(Section):
    """Hyper-parameters of one training step (paper A, Tables 7 and 8)."""

    learning_rate: Positive
    epochs: Positive = 1
    batch_size: Count = Field(
        description="global batch: examples (SFT) or pairs (DPO) per optimiser step, on any number of GPUs"
    )
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Whole = 0
    weight_decay: NonNegative = 0.0
    lora_rank: Whole = Field(0, description="0 = full fine-tuning")
    lora_alpha: Count = 32
    lora_dropout: Fraction = 0.1
    dropout: Fraction = Field(0.0, description="dropout of the network itself")


class SFT(Training):
    """Supervised fine-tuning on preferred responses."""

    loss_on: Literal["completion", "all"] = Field(
        "completion", description="tokens in the loss: the response's, or the prompt's too"
    )


class DPO(Training):
    """Direct preference optimisation."""

    beta: Positive
    loss_type: Loss = Field("sigmoid", description="under TRL's names; sigmoid is DPO")
    label_smoothing: Annotated[NonNegative, Field(lt=0.5)] = Field(
        0.0, description="share of wrong labels that loss_type robust expects"
    )
    soft_labels: bool = Field(
        False,
        description="the labels' probabilities count, not only which response is preferred; people's are certain",
    )
    confidence_weights: bool = Field(
        False, description="weigh each pair by |2 p - 1|, p being the probability of its label"
    )


def _overrides(step: type[Training]) -> type[Section]:
    """The settings of a step, each of them optional."""
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation() | None, None) for name, field in step.model_fields.items()
    }
    return create_model(f"{step.__name__}Overrides", __base__=Section, **fields)


class RewardStep(Training):
    """A Bradley-Terry reward model on a language model, the other kind of teacher (paper A, Table 13)."""


class PerModel(Section):
    """Settings of a recipe that differ for one model."""

    sft: _overrides(SFT) | None = None  # type: ignore[valid-type]
    dpo: _overrides(DPO) | None = None  # type: ignore[valid-type]
    reward: _overrides(RewardStep) | None = None  # type: ignore[valid-type]


class Recipe(Section):
    """How a teacher or a student is tuned: SFT and DPO, or, teachers only, as a reward model."""

    sft: SFT | None = Field(None, description="the first step; or one of the next two keys")
    sft_of: Name | None = Field(
        None, description="recipe whose SFT this one continues: only DPO differs, SFT is trained once"
    )
    without_sft: bool = Field(False, description="DPO begins at the base model (paper A, Table 11)")
    dpo: DPO | None = None
    reward: RewardStep | None = Field(
        None, description="in place of SFT and DPO, for feedback of policy reward"
    )
    same_steps_as: Annotated[str, Field(pattern=SHARE)] | None = Field(
        None,
        description="teachers only: at every labelled share as many steps as at this one, by more epochs (paper A, Figure 4b)",
    )
    per_model: dict[Name, PerModel] = Field(
        {}, description="model -> step -> settings that differ for this model"
    )

    @model_validator(mode="after")
    def _steps_fit(self) -> Recipe:
        exactly_one(self, "dpo", "reward")
        begins = [bool(self.sft), bool(self.sft_of), self.without_sft]
        if self.dpo and sum(begins) != 1:
            raise ValueError("exactly one of the keys sft, sft_of, without_sft is needed beside dpo")
        if self.reward and any(begins):
            raise ValueError("a reward model begins at the base model: no sft, sft_of or without_sft")
        return self

    def longer(self, share: str) -> float:
        """By how much the epochs are multiplied at a labelled share, written "1/4" or "1-of-4"."""
        if self.same_steps_as is None:
            return 1.0
        return float(FractionOf(self.same_steps_as) / FractionOf(share.replace("-of-", "/")))

    def step(self, model: str, step: Step) -> SFT | DPO | RewardStep:
        """The settings of one of the recipe's own steps for a model, its own overrides applied."""
        base = getattr(self, step)
        overrides = getattr(self.per_model.get(model), step, None)
        if overrides is None:
            return base
        return type(base).model_validate({**base.model_dump(), **overrides.model_dump(exclude_none=True)})
