# What answers from bundles: torch, without torchrec and fbgemm; and one bundle. Built from the root
# of the repository, which must hold the bundle:
#   docker build -f docker/serve.Dockerfile -t recsys-serve --build-arg BUNDLE=runs/NAME/bundle .
# or, where bundles are mounted or fetched from object storage, without one:
#   docker build -f docker/serve.Dockerfile -t recsys-serve --target server .
FROM python:3.11-slim AS server

# pip reads this from its environment. Name PyTorch's index of CPU wheels here to keep gigabytes
# of CUDA libraries out of the image.
ARG PIP_EXTRA_INDEX_URL=

WORKDIR /app
COPY pyproject.toml README.md ./
COPY requirements/constraints.txt requirements/
COPY feature_store feature_store
COPY recsys recsys
COPY pipelines pipelines
RUN pip install --no-cache-dir --constraint requirements/constraints.txt ".[server,mcp,redis,s3]"

RUN useradd --create-home recsys
USER recsys

# docker run -p 8000:8000 recsys-serve                             answers over HTTP
# docker run recsys-serve recommend bundle --user 7 -k 10          answers once
ENTRYPOINT ["recsys"]
CMD ["serve", "bundle", "--host", "0.0.0.0"]
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]

# Last, because it changes most often.
FROM server
ARG BUNDLE
COPY ${BUNDLE} bundle
