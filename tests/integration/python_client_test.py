# SPDX-License-Identifier: Apache-2.0
"""A client from the proto files alone, with Python's grpcio: submits, watches, cancels."""

import subprocess
import sys
import unittest
import uuid

import grpc
from google.protobuf import json_format

from harness import ROOT, Case, make_model, make_token_data


class PythonClient(Case):
    def setUp(self):
        super().setUp()
        generated = self.dir / "generated"
        generated.mkdir()
        plugin = subprocess.run(["which", "grpc_python_plugin"], capture_output=True, text=True, check=True).stdout.strip()
        protos = sorted(str(p) for p in (ROOT / "proto").rglob("*.proto"))
        subprocess.run(["protoc", f"--python_out={generated}", f"--grpc_out={generated}", f"--plugin=protoc-gen-grpc={plugin}",
                        "-I", ROOT / "proto", *protos], check=True)
        sys.path.insert(0, str(generated))
        self.addCleanup(sys.path.remove, str(generated))

    def test_submit_watch_cancel(self):
        from mft.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, node_service_pb2, node_service_pb2_grpc
        self.start_daemon()
        spec = {"data": {"instruct_data": str(make_token_data(self.dir / "d.jsonl"))}, "model_id_or_path": str(make_model(self.dir / "m")),
                "run_dir": str(self.dir / "run"), "seq_len": 64, "max_steps": 5, "lora": {"rank": 4},
                "mftd": {"device": "cpu", "precision": "fp32", "threads": 1}}
        with grpc.insecure_channel(f"unix:{self.daemon.socket}") as channel:
            jobs = job_service_pb2_grpc.JobServiceStub(channel)
            request = job_service_pb2.SubmitJobRequest(request_id=str(uuid.uuid4()))
            json_format.ParseDict(spec, request.spec)
            job = jobs.SubmitJob(request, timeout=10).job
            self.assertEqual(jobs.SubmitJob(request, timeout=10).job.id, job.id)
            events = list(jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id), timeout=120))
            numbered = [e for e in events if e.WhichOneof("event") != "bookmark"]
            self.assertEqual([e.sequence for e in numbered], list(range(1, len(numbered) + 1)))
            self.assertEqual([e.step.step for e in numbered if e.WhichOneof("event") == "step"], [1, 2, 3, 4, 5])
            self.assertEqual(numbered[-1].state_changed.to, job_pb2.SUCCEEDED)
            middle = numbered[3].sequence
            rest = list(jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id, after_sequence=middle), timeout=30))
            self.assertEqual([e.sequence for e in rest if e.sequence], [e.sequence for e in numbered[4:]])

            request.request_id, request.spec.max_steps = str(uuid.uuid4()), 100000
            request.spec.run_dir = str(self.dir / "run2")
            job = jobs.SubmitJob(request, timeout=10).job
            states = []
            for event in jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id), timeout=120):
                if event.WhichOneof("event") == "step" and event.step.step == 2:
                    jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=10)
                if event.WhichOneof("event") == "state_changed":
                    states.append(event.state_changed.to)
            self.assertEqual(states[-2:], [job_pb2.CANCELLING, job_pb2.CANCELLED])
            node = node_service_pb2_grpc.NodeServiceStub(channel)
            self.assertGreater(len(node.ListDevices(node_service_pb2.ListDevicesRequest(), timeout=10).devices), 0)
            self.assert_refusals(jobs, job_service_pb2, request)

    def assert_refusals(self, jobs, service, request):
        request.request_id, request.spec.seq_len = str(uuid.uuid4()), 0
        with self.assertRaises(grpc.RpcError) as refused:
            jobs.SubmitJob(request, timeout=10)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        details = dict(refused.exception.trailing_metadata())["grpc-status-details-bin"]
        self.assertIn(b"google.rpc.ErrorInfo", details)
        self.assertIn(b"google.rpc.BadRequest", details)
        self.assertIn(b"mftd.dev", details)
        with self.assertRaises(grpc.RpcError) as missing:
            jobs.GetJob(service.GetJobRequest(job_id="jaaaaaaaaaaa"), timeout=10)
        self.assertEqual(missing.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main(verbosity=2)
