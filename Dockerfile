# docker build -t unstill . && docker run --rm -v "$PWD:/work" unstill animate photo.jpg
# With a GPU: --build-arg TORCH=https://download.pytorch.org/whl/cu128, and docker run --gpus all
FROM python:3.12-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
COPY . /source
RUN python -m pip install --no-cache-dir torch --index-url "$TORCH" \
    && python -m pip install --no-cache-dir -c /source/constraints.txt "/source[app]" \
    && rm -r /source
WORKDIR /work
ENTRYPOINT ["unstill"]
