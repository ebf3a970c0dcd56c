# The image of the service (SUPPLY-03): a system library, the binary, and neither shell nor package
# manager. It runs read-only and as a user without rights.
#
#   docker build --build-arg BUILD_IMAGE=… --build-arg RUNTIME_IMAGE=… --tag service .
#
# BUILD_IMAGE has Rust, a C compiler and bash. RUNTIME_IMAGE has the same C library, CA certificates
# and no shell (distroless). Name both by digest for a release: docs/deployment.md.
ARG BUILD_IMAGE
ARG RUNTIME_IMAGE

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
ARG PROFILE=release
ARG SOURCE_DATE_EPOCH=0
RUN PROFILE=$PROFILE SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH .ci/build-release /out

FROM ${RUNTIME_IMAGE}
ARG SOURCE=unknown
ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/service /service
# A number, so that Kubernetes can verify that it is not root.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/service", "health"]
ENTRYPOINT ["/service"]
CMD ["serve"]
