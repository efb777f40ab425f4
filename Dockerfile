# docker build -t lfm-policy . && docker run --rm lfm-policy
# Runs the demo on a CPU: demonstrations, training and evaluation on Lift, in some minutes on two cores.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 libosmesa6 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /lfm-policy
COPY . .
RUN make .venv/installed PYTHON=python3.12 TORCH_INDEX=https://download.pytorch.org/whl/cpu
CMD ["make", "demo"]
