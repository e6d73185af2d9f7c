# The README's steps in a container; docs/clusters.md says how to run a study in it.
#   docker build --tag rareclass .
#   docker build --tag rareclass --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
FROM python:3.11-bookworm

# another place for PyTorch alone: builds for the CPU, or for another version of CUDA
ARG TORCH_INDEX=""

WORKDIR /rareclass
COPY . .
RUN if [ -n "$TORCH_INDEX" ]; then \
        python3 -m venv .venv && \
        .venv/bin/python -m pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch; \
    fi
RUN make install

ENV PATH="/rareclass/.venv/bin:$PATH"
CMD ["make"]
