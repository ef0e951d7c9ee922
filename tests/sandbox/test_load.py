"""The load generator counts every request, and invents none."""

import socket
import threading

import pytest

from deployer.sandbox import Load


@pytest.fixture
def serve():
    """Serves each connection with a function on a socket; returns the URL."""
    listeners = []

    def begin(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def connection(peer):
            with peer:
                answer(peer)

        def accept():
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=connection, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield begin
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def answers(text):
    def answer(peer):
        while peer.recv(65536):
            peer.sendall(text)

    return answer


GOOD = b"HTTP/1.1 200 OK\r\nX-Version: 5\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://127.0.0.1/", "http://localhost/", "http://10.0.0.1/", "ftp://x", "x"]
)
def test_it_goes_to_loopback_addresses_only(url):
    with pytest.raises(ValueError, match=r"load goes to http://127\.x\.y\.z addresses only"):
        Load(url)


def test_good_answers(serve):
    load = Load(serve(answers(GOOD)), rate=300, keep_alive=2, fresh=2).start()
    load.wait_for(lambda report: report.answered >= 60, 10)
    report = load.stop()
    assert (report.failed, report.failures) == (0, {})
    assert report.sent == report.answered == report.by_version["5"]
    assert sum(second.answered for second in report.timeline) == report.answered
    assert 0 < report.latency_p50 <= report.latency_p99 < 5
    assert report.began <= report.first_seen["5"] <= report.last_seen["5"]


def test_the_pace_is_kept(serve):
    load = Load(serve(answers(GOOD)), rate=100, keep_alive=1, fresh=1).start()
    report = load.wait_for(lambda report: len(report.timeline) >= 3, 10)
    load.stop()
    assert 60 <= report.timeline[1].answered <= 140


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "HTTP 502"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "HTTP 404"),
    ],
)
def test_bad_answers_are_failures(serve, text, reason):
    load = Load(serve(answers(text)), rate=200).start()
    load.wait_for(lambda report: report.failed >= 10, 10)
    report = load.stop()
    assert report.answered == 0
    assert report.failures == {reason: report.sent}


def test_a_connection_that_closes_is_a_failure_and_not_tried_again(serve):
    asked = []

    def close_early(peer):
        asked.append(peer.recv(65536))

    load = Load(serve(close_early), rate=100).start()
    load.wait_for(lambda report: report.failed >= 10, 10)
    report = load.stop()
    assert set(report.failures) == {"connection closed before an answer"}
    assert report.sent == report.failed == len(asked)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    load = Load(url, rate=100).start()
    load.wait_for(lambda report: report.failed >= 5, 10)
    assert set(load.stop().failures) == {"connection refused"}


def test_waiting_in_vain_ends(serve):
    load = Load(serve(answers(GOOD)), rate=50).start()
    with pytest.raises(TimeoutError, match="the load did not get there"):
        load.wait_for(lambda report: report.failed > 0, 0.2)
    load.stop()
