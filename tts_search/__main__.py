"""`python -m tts_search`: the same as the `tts-search` command."""

from tts_search.cli import main

if __name__ == "__main__":
    main()
