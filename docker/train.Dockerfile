# The whole platform: ingest, train, evaluate, export. Built from the root of the repository:
#   docker build -f docker/train.Dockerfile -t recsys-train .
# For GPUs add --build-arg DEVICE=cuda, and run with --gpus all.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# pip reads this from its environment. Name PyTorch's index of CPU wheels here to keep gigabytes
# of CUDA libraries out of a CPU image.
ARG PIP_EXTRA_INDEX_URL=
ARG DEVICE=cpu

WORKDIR /app
COPY Makefile pyproject.toml README.md ./
COPY requirements requirements
COPY feature_store feature_store
COPY recsys recsys
COPY pipelines pipelines
RUN make setup DEVICE=${DEVICE}
ENV PATH=/app/.venv/bin:${PATH}

# Folders that volumes are mounted on take their owner from here.
RUN useradd --create-home recsys && install --directory --owner=recsys runs
USER recsys

ENTRYPOINT ["recsys"]
CMD ["doctor"]
