"""Silence is what nobody broke in time, however late the loop comes to look."""

from __future__ import annotations

import asyncio
import time

from tts_search.generators.openai.silence import Silence


def test_silence_strikes_once_and_not_behind_its_end() -> None:
    struck: list[int] = []

    async def work() -> tuple[bool, bool]:
        with Silence(0.01, lambda: struck.append(1)) as silence:
            await asyncio.sleep(0.1)
        with Silence(0.01, lambda: struck.append(2)) as ended:
            pass
        await asyncio.sleep(0.1)
        return silence.struck, ended.struck

    assert asyncio.run(work()) == (True, False)
    assert struck == [1]


def test_what_came_while_the_loop_was_held_up_is_heard() -> None:
    struck: list[int] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        with Silence(0.02, lambda: struck.append(1)) as silence:
            for _ in range(3):
                come = loop.create_future()
                loop.call_later(0.001, come.set_result, None)
                time.sleep(0.05)  # both are due when the loop goes on
                await come
                silence.heard()

    asyncio.run(work())
    assert struck == []
