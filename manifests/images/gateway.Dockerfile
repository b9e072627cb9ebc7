# tidegate/gateway. From the root of the clone: docker build -f manifests/images/gateway.Dockerfile -t tidegate/gateway .
# The layout is that of the image which `cargo xtask` makes for the local cluster without a container engine
# (tests/cluster/src/images.rs): the program in /usr/local/bin, user 65532, nothing to log in with.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libssl-dev pkg-config zlib1g-dev
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tidegate-gateway && cp target/release/tidegate-gateway /

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgcc-s1 libssl3 tzdata zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 tidegate \
    && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tidegate
COPY --from=build /tidegate-gateway /usr/local/bin/tidegate-gateway
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/tidegate-gateway"]
