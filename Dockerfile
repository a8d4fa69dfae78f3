# The images: one static program on an empty file system, for a user without a name. Neither needs /tmp, a shell, a list of
# users or certificate authorities: names are resolved by the C library in the program, from the resolv.conf that the runtime
# mounts, and whom to trust stands in mounted Secrets.
#
#   docker build --target pvferry .
#   docker build --target pvferry-controller .
#
# Programs that were built before take the place of the first stage, and nothing is fetched; deploy/image does that:
#
#   podman build --build-context binaries=DIR --target pvferry .

FROM docker.io/library/rust:1.95-alpine AS binaries
# C and assembly of aws-lc, BLAKE3, mimalloc and Zstandard.
RUN apk add --no-cache build-base cmake linux-headers
WORKDIR /src
COPY . .
# One build for both programs; registry and compiled crates stay in caches of the builder.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package pvferry --package pvferry-controller-bin \
 && cp target/dist/pvferry target/dist/pvferry-controller /

FROM scratch AS pvferry-controller
COPY --from=binaries /pvferry-controller /pvferry-controller
USER 65532:65532
ENTRYPOINT ["/pvferry-controller"]

# Last, and so what is built where no target is named.
FROM scratch AS pvferry
COPY --from=binaries /pvferry /pvferry
USER 65532:65532
ENTRYPOINT ["/pvferry"]
