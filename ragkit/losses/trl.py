"""The brief's loss inside TRL: `DPOTrainer` with a strength for each pair, from the dataset's own column; and
any score of an answer as a reward for TRL's `GRPOTrainer`.

TRL's sigmoid loss is −log σ(β·Δ), with one β. Here β is the batch's strengths, (B,), while the loss is made:
all else that the trainer does (adapters, precomputed reference, logging, evaluation) stays TRL's. Checked
with TRL 1.16.
"""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from accelerate.utils import is_peft_model
from trl import DPOTrainer

from ragkit.preferences.conversations import as_text, turns_of

COLUMN = "strength"


def reward_function(score: Callable[[str, str], float | None]) -> Callable[..., list[float]]:
    """`score(query, answer)`, as `reward_gap` takes it, as one of the `reward_funcs` of `trl.GRPOTrainer`.

    Conversations become texts as `from_trl` makes them. Raises ValueError, with answer and query, where the
    score is None, NaN or infinite: TRL counts None as 0 where another reward function has a number.
    """

    def rewards(prompts: list, completions: list, **columns) -> list[float]:
        found = []
        for prompt, completion in zip(prompts, completions, strict=True):
            query, answer = as_text(turns_of(prompt, "user")), as_text(turns_of(completion, "assistant"))
            value = _plain(score(query, answer))
            value = int(value) if isinstance(value, bool) else value
            found.append(_number(value, f"the reward of {answer!r:.80} as an answer to {query!r:.80}"))
        return found

    rewards.__name__ = getattr(score, "__name__", type(score).__name__)  # TRL's metrics are named after it
    return rewards


class StrengthDPOTrainer(DPOTrainer):
    """`trl.DPOTrainer` whose datasets carry a strength h for each pair, in the column "strength".

        dataset = Dataset.from_list(to_trl(pairs, rank_gap()(pairs)))
        StrengthDPOTrainer(model, args=DPOConfig(…), train_dataset=dataset, …).train()

    A constant column is DPO with that β. The metrics "rewards/…" are h · log-ratio, too. Without `ref_model`
    the reference is the model as it is now: with its new adapters off or its old ones copied, from
    `precompute_ref_log_probs`, or else a frozen copy (TRL would load the checkpoint that the model once came
    from). A model out of a GGUF file is trained if its weights are floats by now.

    Raises ValueError, with the row, for a strength that is missing, NaN or infinite, for a prompt that fills
    `max_length` (TRL would drop the row), and for conversations among texts (TRL would forget the texts' end
    token); and for a loss_type other than "sigmoid".
    """

    def __init__(self, model, ref_model=None, args=None, **others):
        if not isinstance(model, str):  # a name TRL loads, and its reference from the same
            _count_as_floats(model)
            adapted = is_peft_model(model) or others.get("peft_config") is not None
            precomputed = args is not None and args.precompute_ref_log_probs
            if ref_model is None and not (adapted or precomputed):
                ref_model = copy.deepcopy(model).eval().requires_grad_(False)
                vars(ref_model).pop("forward", None)  # an earlier trainer's, which would run the original
        super().__init__(model, ref_model, args, **others)
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
                for row, value in enumerate(dataset[COLUMN]):
                    _number(value, f"row {row} of the {name} dataset: strength")
        self.data_collator = _WithStrength(self.data_collator)

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        place = f"row {{}} of the {dataset_name} dataset"
        texts = isinstance(next(iter(dataset))["chosen"], str)
        dataset = dataset.filter(partial(_alike, texts=texts, place=place), with_indices=True)
        unlimited = copy.copy(args)  # at the limit TRL would drop rows
        unlimited.max_length = None
        dataset = super()._prepare_dataset(dataset, processing_class, unlimited, dataset_name)
        if args.max_length is None or args.truncation_mode != "keep_start":
            return dataset
        return dataset.filter(partial(_fits, limit=args.max_length, place=place), with_indices=True)

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
        strengths = [
            _number(row.get(COLUMN), f"pair {i} of a batch: strength") for i, row in enumerate(examples)
        ]
        return {**self.collate(examples), COLUMN: torch.tensor(strengths, dtype=torch.float32)}


def _count_as_floats(model) -> None:
    """transformers calls what it made floats of on loading a GGUF file quantised, and refuses to train it."""
    model = model.get_base_model() if is_peft_model(model) else model
    quantizer = getattr(model, "hf_quantizer", None)
    packed = quantizer is None or not all(parameter.is_floating_point() for parameter in model.parameters())
    if not packed and quantizer.quantization_config.quant_method == "gguf":
        quantizer.remove_quantization_config(model)


def _alike(example: dict, row: int, texts: bool, place: str) -> bool:
    if isinstance(example["chosen"], str) != texts:
        first, other = ("texts", "a conversation")[:: 1 if texts else -1]
        raise ValueError(
            f"{place.format(0)} has {first}, {place.format(row)} {other}: TRL goes by the first row, and "
            "would give texts among conversations no end token; let all be of one kind"
        )
    return True


def _fits(example: dict, row: int, limit: int, place: str) -> bool:
    if (length := len(example["prompt_ids"])) >= limit:
        raise ValueError(
            f"{place.format(row)}: its prompt has {length} tokens, and max_length={limit} leaves nothing of "
            "the answers; set max_length higher or to None, or shorten the prompt"
        )
    return True


def _plain(value):
    """NumPy's and torch's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _number(value, what: str) -> float:
    """As a float: a number as JSON, NumPy or torch has it, in whatever format a dataset gives it."""
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"{what} is {value!r}; it must be a finite number")
    return float(number)
