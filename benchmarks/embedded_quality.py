"""How good the embedded model is: accuracy by selector and k on held-out puzzles, with 95 % intervals.

    python -m benchmarks.embedded_quality --questions 500 --pool 16

Samples afresh with its own plain sampler, so it measures the model and its head, not the library's engines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

from tools.embedded.graded_samples import sample
from tools.embedded.policy import TEMPERATURE
from tools.embedded.quality import markdown, quality, trajectory_scores
from tts_search.embedded import MODEL_FOLDER
from tts_search.embedded.puzzles import held_out
from tts_search.sprm.module import SPRM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="model folder with its head in sprm/")
    parser.add_argument("--questions", type=int, default=500, help="number of held-out puzzles")
    parser.add_argument("--pool", type=int, default=16, help="samples a puzzle")
    parser.add_argument("--seed", type=int, default=0, help="of the puzzles and of the samples")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", type=Path, help="also write the report here")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    policy = Qwen2ForCausalLM.from_pretrained(options.model).eval()
    head = SPRM.from_pretrained(options.model, hidden_size=policy.config.hidden_size)
    groups = sample(
        policy,
        tokenizer,
        held_out(options.questions, options.seed),
        n=options.pool,
        seed=options.seed,
        temperature=options.temperature,
        report=print,
    )
    report = quality(groups, trajectory_scores(head, groups)) | {"temperature": options.temperature}
    print(f"\n{markdown(report)}\n\nAUC {report['auc']}, within a question {report['auc_within_question']}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
