# A Holdfast worker and CLI. /app/agents holds the examples, unless a folder of yours is mounted there.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/holdfast
ENV PATH=/opt/holdfast/bin:$PATH
WORKDIR /src
# The dependencies first: they change less often than the sources.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY holdfast/ holdfast/
COPY activities/ activities/
COPY workflows/ workflows/
COPY client/ client/
COPY worker/ worker/
COPY examples/ examples/
RUN pip install --no-deps .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp holdfast
COPY --from=build /opt/holdfast /opt/holdfast
COPY --chmod=755 examples/ /app/agents/
# HOME is /tmp: the one folder that stays writable when the root file system is read-only.
ENV PATH=/opt/holdfast/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    INVOICE_LEDGER=/tmp/verdicts.jsonl
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["holdfast"]
CMD ["worker", "/app/agents/invoice_checker.py"]
