"""The gRPC services as Python stubs, for tests and operators' scripts; needs the wheel's extra `grpc`.

    from strata.proto.strata.v1 import coordinator_pb2, coordinator_pb2_grpc

Made by scripts/stubs.py from proto/; what the messages mean is written there. Independent of `strata._core`.
"""
