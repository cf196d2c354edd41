"""Many questions through one engine: results come as they are ready, and a broken question harms no other.

python examples/many_questions.py
"""

from tts_search import BestOfN, Searcher
from tts_search.embedded.puzzles import held_out


def main() -> None:
    puzzles = held_out(20, seed=1)
    questions = [puzzle.question for puzzle in puzzles] + [""]  # the last one is broken
    right = 0
    with Searcher() as searcher:
        for result in searcher.search_many(questions, strategy=BestOfN(n=16), budget=2000):
            if result.error:
                print(f"question {result.index} failed: {result.error}")
                continue
            solved = puzzles[result.index].grade(result.answer)
            right += solved
            print(f"{'right' if solved else 'wrong'}  {result.question}  {result.answer}")
    print(f"{right} of {len(puzzles)} right")


if __name__ == "__main__":
    main()
