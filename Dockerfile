# LoRA Studio, run as a plain user. docs/deployment-and-security.md says how to use it.
#
#   docker build -t lora-studio .
#   docker build -t lora-studio --build-arg TORCH_INDEX=ADDRESS .     # another build of torch: CPU only, or ROCm
#
# Without TORCH_INDEX, torch's default package for Linux is installed, which runs on a CPU and on CUDA (with
# `docker run --gpus all`); the CUDA libraries come with it, so that no CUDA base image is needed.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 1000 --shell /usr/sbin/nologin studio \
    && install --directory --owner=studio --group=studio /workspace

WORKDIR /app
COPY requirements.txt ./
ARG TORCH_INDEX=""
RUN if [ -n "${TORCH_INDEX}" ]; then \
        pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' requirements.txt)"; \
    fi \
    && pip install -r requirements.txt

COPY LICENSE README.md CHANGELOG.md pyproject.toml launch.py ./
COPY assets ./assets
COPY studio ./studio
RUN pip install --no-deps --editable .

USER 1000
ENV STUDIO_HOST=0.0.0.0 \
    STUDIO_PORT=7860 \
    STUDIO_NO_BROWSER=1 \
    STUDIO_WORKSPACE=/workspace
VOLUME /workspace
EXPOSE 7860
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=15)"]
ENTRYPOINT ["python", "launch.py"]
