# The worker and the producers in one image. The build runs the demo once: that proves the image and
# leaves numba's compiled kernels in it, so that a container starts without compiling.
FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/riverwatch
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY worker worker
COPY producers producers
RUN /opt/riverwatch/bin/pip install --quiet --constraint constraints.txt .

FROM python:3.12-slim
ENV PATH=/opt/riverwatch/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/riverwatch
RUN useradd --system --uid 10001 --no-create-home riverwatch \
    && install -d -o riverwatch "$NUMBA_CACHE_DIR"
WORKDIR /app
COPY --from=build /opt/riverwatch /opt/riverwatch
COPY examples examples
# Inside a network of containers the servers are not at localhost: their addresses come from outside.
RUN sed -e 's#localhost:9092#${KAFKA_BOOTSTRAP}#' -e 's#redis://localhost:6379/0#${REDIS_URL}#' \
    examples/cards/cards.yaml > cards.yaml
USER 10001
RUN riverwatch demo --alerts 1
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
ENTRYPOINT ["riverwatch"]
