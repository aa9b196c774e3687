"""The brief's loss inside TRL: `DPOTrainer` with a strength for each pair, from the dataset's own column.

TRL's sigmoid loss is −log σ(β·Δ), with one β. Here β is the batch's strengths, (B,), while the loss is made:
all else that the trainer does (adapters, precomputed reference, logging, evaluation) stays TRL's. Checked
with TRL 1.16.
"""

import math

import torch
from trl import DPOTrainer

COLUMN = "strength"


class StrengthDPOTrainer(DPOTrainer):
    """`trl.DPOTrainer` whose datasets carry a strength h for each pair, in the column "strength".

        dataset = dataset.add_column("strength", rank_gap()(pairs).tolist())
        StrengthDPOTrainer(model, ref_model, args=DPOConfig(…), train_dataset=dataset, …).train()

    A constant column is DPO with that β. The metrics "rewards/…" are h · log-ratio, too. Raises ValueError,
    with the row, for a strength that is missing, NaN or infinite, and for a loss_type other than "sigmoid".
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.loss_types != ["sigmoid"]:
            raise ValueError(f"loss_type={self.loss_types}: strengths are defined for 'sigmoid' alone")
        evaluated = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
        for name, dataset in {"train": self.train_dataset, **evaluated}.items():
            columns = getattr(dataset, "column_names", None)
            if columns is None:
                continue  # no dataset, or a stream that does not tell: the collator will
            if COLUMN not in columns:
                raise ValueError(f"the {name} dataset has no column {COLUMN!r}: only {', '.join(columns)}")
            if hasattr(dataset, "__len__"):
                _numbers(dataset[COLUMN], f"row {{}} of the {name} dataset")
        self.data_collator = _WithStrength(self.data_collator)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if COLUMN not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, COLUMN]

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(model, {k: v for k, v in inputs.items() if k != COLUMN})

    def _compute_loss(self, model, inputs, return_outputs):
        inputs = dict(inputs)
        beta, self.beta = self.beta, inputs.pop(COLUMN)
        try:
            return super()._compute_loss(model, inputs, return_outputs)
        finally:
            self.beta = beta


class _WithStrength:
    """TRL's collator, and the strengths as a column of the batch."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, examples: list[dict]) -> dict:
        # Tensors, which a dataset may be set to give, TRL would add up where it means to join lists.
        examples = [{name: _plain(value) for name, value in example.items()} for example in examples]
        strengths = _numbers([example.get(COLUMN) for example in examples], "pair {} of a batch")
        return {**self.collate(examples), COLUMN: torch.tensor(strengths, dtype=torch.float32)}


def _plain(value):
    """NumPy's and torch's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _numbers(strengths, place: str) -> list[float]:
    """Each as a float: as JSON, NumPy or torch has numbers, in whatever format the dataset gives them."""
    found = []
    for row, value in enumerate(strengths):
        number = _plain(value)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{place.format(row)}: strength is {value!r}; it must be a finite number")
        found.append(float(number))
    return found
