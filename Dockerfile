# The environment in which runs of a Docker or Kubernetes work pool work: docs/pools.md says how.
#
#     docker build --build-arg UID=$(id -u) --tag zerovl .
#
# The flows run the code of the checkout that the pool mounts; what is installed here gives the command `zerovl`.
FROM nvidia/cuda:13.0.0-base-ubuntu24.04

# git and ssh for the branch of a run and its remote; gcc for the kernels that Triton compiles.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates gcc git libc6-dev openssh-client python3 python3-dev python3-venv \
    # Elsewhere git takes a mounted checkout of another owner for a trap; here it is the only one there is.
    && git config --system --add safe.directory '*' \
    && rm -rf /var/lib/apt/lists/*

# The owner of the checkout on the host, so that what a run writes there is theirs.
ARG UID=1000
RUN useradd --create-home --non-unique --uid "$UID" zerovl \
    && install --directory --owner zerovl /opt/zerovl
USER zerovl
WORKDIR /opt/zerovl
# HOME: Kubernetes would take that of the first user with this UID, which Ubuntu's image may have already.
ENV HOME=/home/zerovl \
    VIRTUAL_ENV=/opt/zerovl/.venv \
    PATH=/opt/zerovl/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1

# Before the code: the layer of several gigabytes changes with the lock alone.
COPY --chown=zerovl requirements.lock ./
# A mirror of PyPI is a secret of the build: its address may have a password, and an ARG stays in the image's history.
RUN --mount=type=secret,id=pip_index,mode=0444 \
    if [ -f /run/secrets/pip_index ]; then \
        PIP_INDEX_URL="$(cat /run/secrets/pip_index)"; UV_DEFAULT_INDEX="$PIP_INDEX_URL"; \
        export PIP_INDEX_URL UV_DEFAULT_INDEX; \
    fi \
    && python3 -m venv .venv \
    && pip install --no-cache-dir uv \
    && uv pip sync --no-cache --require-hashes requirements.lock

COPY --chown=zerovl pyproject.toml README.md ./
COPY --chown=zerovl flows ./flows
COPY --chown=zerovl zerovl ./zerovl
RUN uv pip install --no-cache --no-deps --no-build-isolation .

CMD ["zerovl", "--help"]
