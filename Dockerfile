# tts-search serve with vLLM on a GPU. For a machine without one: --build-arg BASE=python:3.11-slim --build-arg EXTRAS=serve
ARG BASE=vllm/vllm-openai:v0.32.0
FROM ${BASE}
ARG EXTRAS=serve,vllm
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY tts_search ./tts_search
RUN pip install --no-cache-dir ".[${EXTRAS}]" && useradd --create-home server
USER server
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=15m \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
# Others than the container itself reach it, so it wants TTS_SEARCH_API_KEY (or --keys FILE), and does not start without.
ENTRYPOINT ["tts-search", "serve", "--host", "0.0.0.0"]
