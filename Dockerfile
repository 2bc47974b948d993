# docker build -t unstill .
# docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" unstill animate photo.jpg
# The page: docker run --rm -p 127.0.0.1:7860:7860 unstill app --host 0.0.0.0
# With a GPU: docker build --build-arg TORCH=https://download.pytorch.org/whl/cu128 ..., and docker run --gpus all ...
FROM python:3.12-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY src /source/src
# First torch from its own index, in the version of constraints.txt: otherwise pip fetches the one with CUDA.
RUN python -m pip install --no-cache-dir "$(grep '^torch==' /source/constraints.txt)" --index-url "$TORCH" \
    && python -m pip install --no-cache-dir -c /source/constraints.txt "/source[app]"
# A home that every user can write to: libraries keep their caches there.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["unstill"]
