# demur on a CPU. Build: docker build -t demur .   Run: docker run --rm demur demo --out /tmp/demo
# A smaller image, with PyTorch's CPU wheels: --build-arg TORCH_INDEX=<the CPU index that PyTorch documents>
# Serve: docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD:/data" -e DEMUR_API_KEYS=... \
#            demur serve --model organism-ar --guard /data/guard.safetensors --host 0.0.0.0
FROM python:3.11-slim AS build
ARG TORCH_INDEX=
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN python -m venv /opt/demur \
    && /opt/demur/bin/pip install --no-cache-dir --disable-pip-version-check \
        -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[serve,hub]'

FROM python:3.11-slim
LABEL org.opencontainers.image.title="demur" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Watch, measure and guard how a language model refuses."
RUN useradd --create-home --uid 10001 demur
COPY --from=build /opt/demur /opt/demur
ENV PATH=/opt/demur/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib HF_HOME=/home/demur/.cache/huggingface
USER demur
WORKDIR /home/demur
EXPOSE 8000
ENTRYPOINT ["demur"]
CMD ["--help"]
