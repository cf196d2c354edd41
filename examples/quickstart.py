"""One question, three efforts: more thinking, better scored, one answer.

python examples/quickstart.py
"""

from tts_search import Searcher

QUESTION = "Using the numbers 7, 5, 15 and 11, make 24."


def main() -> None:
    with Searcher() as searcher:  # the small reflective model that ships with the package
        for effort in ("low", "medium", "high"):
            result = searcher.search(QUESTION, effort=effort)
            print(f"{effort}: {result.answer}   (score {result.score:.3f}, {result.usage.sampled_tokens} tokens)")
        print()
        for step in result.steps:
            print(f"{step.score:.3f}  {step.text.strip()}")


if __name__ == "__main__":
    main()
