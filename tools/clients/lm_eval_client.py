"""lm-eval's `local-chat-completions` on a small task of its own: temperature 0, stop strings, a seed."""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

TASK = """
task: puzzles
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs:
  until: ["\\n\\n", "Question:"]
  max_gen_toks: 64
metric_list:
  - metric: exact_match
    regexes_to_ignore: ["^.*= *"]
"""
PUZZLES = [((7, 5, 15, 11), 24), ((3, 4, 5, 6), 18), ((10, 2, 3, 1), 14), ((9, 8, 7, 6), 30)]

with tempfile.TemporaryDirectory() as folder:
    data, tasks, out = Path(folder, "puzzles.jsonl"), Path(folder, "tasks"), Path(folder, "out")
    tasks.mkdir()
    lines = [
        {"question": f"Using the numbers {a}, {b}, {c} and {d}, make {t}.", "target": str(t)}
        for (a, b, c, d), t in PUZZLES
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tasks / "puzzles.yaml").write_text(TASK.format(data=data))
    arguments = f"model=embedded,base_url={os.environ['OPENAI_BASE_URL']}/chat/completions,num_concurrent=2"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions", "--model_args", arguments]
    command += [
        "--tasks",
        "puzzles",
        "--include_path",
        str(tasks),
        "--apply_chat_template",
        "--output_path",
        str(out),
        "--log_samples",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HOME": folder, "HF_HUB_OFFLINE": "0"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    (samples,) = out.rglob("samples_puzzles*.jsonl")
    answers = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
assert len(answers) == len(PUZZLES) and all(answers), answers
print(f"lm-eval {version('lm_eval')}: {len(answers)} documents, none empty for its stop of a blank line")
