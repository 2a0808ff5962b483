// SPDX-License-Identifier: Apache-2.0
//
// echo.cpp: the echo server an Asio user would write for speed. Compiled twice: on epoll, and on io_uring.
//
// Callbacks rather than coroutines, since they cost less here. One thread, so the context is told that it needs no
// locks, and sockets name the context's own executor type rather than the type-erased one.
#include <asio.hpp>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <utility>

using asio::ip::tcp;
using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<tcp, Executor>;
using Acceptor = asio::basic_socket_acceptor<tcp, Executor>;

namespace {

// One connection. Alive as long as one of its operations is.
class Session : public std::enable_shared_from_this<Session> {
  public:
    explicit Session(Socket socket) : socket_(std::move(socket)) {}

    void receive() {
        socket_.async_read_some(asio::buffer(bytes_), [self = shared_from_this()](std::error_code error, size_t count) {
            if (!error)
                self->send(count);
        });
    }

  private:
    void send(size_t count) {
        asio::async_write(socket_, asio::buffer(bytes_, count),
                          [self = shared_from_this()](std::error_code error, size_t) {
                              if (!error)
                                  self->receive();
                          });
    }

    Socket socket_;
    std::array<char, 64 * 1024> bytes_; // not initialised: pages nobody writes cost nothing
};

void accept(Acceptor &acceptor) {
    acceptor.async_accept([&acceptor](std::error_code error, Socket socket) {
        if (!error) {
            std::error_code ignored;
            socket.set_option(tcp::no_delay(true), ignored);
            std::shared_ptr<Session>(new Session(std::move(socket)))->receive();
        }
        if (acceptor.is_open())
            accept(acceptor);
    });
}

unsigned short port_from_arguments(int count, char **arguments) {
    if (count == 1)
        return 0;
    if (count == 3 && std::strcmp(arguments[1], "--port") == 0)
        return static_cast<unsigned short>(std::atoi(arguments[2]));
    std::cerr << "usage: " << arguments[0] << " [--port N]\n";
    std::exit(64);
}

} // namespace

int main(int count, char **arguments) try {
    asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
    asio::signal_set signals(context, SIGTERM, SIGINT);
    signals.async_wait([&context](std::error_code, int) { context.stop(); });

    tcp::endpoint endpoint(asio::ip::address_v4::loopback(), port_from_arguments(count, arguments));
    Acceptor acceptor(context.get_executor());
    acceptor.open(endpoint.protocol());
    acceptor.set_option(Acceptor::reuse_address(true));
    acceptor.bind(endpoint);
    acceptor.listen();
    accept(acceptor);
    std::cout << "listening on 127.0.0.1:" << acceptor.local_endpoint().port() << std::endl;
    context.run();
    return 0;
} catch (const std::exception &error) {
    std::cerr << "asio-echo: " << error.what() << "\n";
    return 1;
}
