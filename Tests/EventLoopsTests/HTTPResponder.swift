// SPDX-License-Identifier: Apache-2.0
//
// HTTPResponder.swift: as much of HTTP/1.1 as curl needs of a server: requests with a body of a stated length or none,
// any number of them on a connection, and answers with a length.

import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

struct HTTPRequest {
    var method: String
    var target: String
    /// By names in lower case.
    var fields: [String: String]
    var body: [UInt8]
}

/// Answers the requests of a connection until the peer finishes.
struct HTTPResponder {
    /// The body of the answer; `nil`: not found.
    let answer: @Sendable (HTTPRequest) throws -> [UInt8]?

    func serve(_ connection: Connection) async throws {
        var unread: [UInt8] = []
        while let request = try await next(&unread, on: connection) {
            let body = try answer(request)
            let status = body == nil ? "404 Not Found" : "200 OK"
            let head = "HTTP/1.1 \(status)\r\nContent-Length: \(body?.count ?? 0)\r\n\r\n"
            try await connection.write(Array(head.utf8))
            try await connection.write(body ?? [])
            if request.fields["connection"] == "close" { return }
        }
    }

    private func next(_ unread: inout [UInt8], on connection: Connection) async throws -> HTTPRequest? {
        var searched = 0
        var end: Int?
        while end == nil {
            end = endOfHead(unread, from: searched)
            searched = max(0, unread.count - 3)
            if end == nil, try await !receive(&unread, on: connection) {
                if unread.isEmpty { return nil }
                throw Impatience(description: "the rest of a request, of which there are \(unread.count) bytes")
            }
        }
        var request = try parse(unread[..<end!])
        unread.removeFirst(end!)
        guard let length = Int(request.fields["content-length"] ?? "0") else {
            throw Impatience(description: "a length that is a number, in \(request.fields)")
        }
        if request.fields["expect"] == "100-continue" {
            try await connection.write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8))
        }
        while unread.count < length {
            if try await !receive(&unread, on: connection) {
                throw Impatience(description: "a body of \(length) bytes, of which \(unread.count) came")
            }
        }
        request.body = Array(unread[..<length])
        unread.removeFirst(length)
        return request
    }

    private func receive(_ unread: inout [UInt8], on connection: Connection) async throws -> Bool {
        guard let bytes = try await connection.read() else { return false }
        bytes.withUnsafeBytes { unread += $0 }
        return true
    }

    /// Behind the empty line.
    private func endOfHead(_ bytes: [UInt8], from start: Int) -> Int? {
        var index = start
        while index + 4 <= bytes.count {
            if bytes[index..<index + 4].elementsEqual("\r\n\r\n".utf8) { return index + 4 }
            index += 1
        }
        return nil
    }

    private func parse(_ head: ArraySlice<UInt8>) throws -> HTTPRequest {
        let lines = String(decoding: head, as: UTF8.self).split(separator: "\r\n")
        let words = lines[0].split(separator: " ")
        guard words.count == 3, words[2] == "HTTP/1.1" else {
            throw Impatience(description: "a request of HTTP/1.1 rather than \(lines[0])")
        }
        var fields: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            fields[parts[0].lowercased()] = String(parts.count == 2 ? parts[1].drop { $0 == " " } : "").lowercased()
        }
        return HTTPRequest(method: String(words[0]), target: String(words[1]), fields: fields, body: [])
    }
}
