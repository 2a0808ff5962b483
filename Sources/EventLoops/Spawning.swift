// SPDX-License-Identifier: Apache-2.0
//
// Spawning.swift: a command as the core wants it: strings, descriptors, and what failed.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Strings in the form of `argv`.
private struct CStrings: ~Copyable {
    private var pointers: [UnsafePointer<CChar>?] = []

    deinit { for pointer in pointers { free(UnsafeMutableRawPointer(mutating: pointer)) } }

    mutating func append(_ text: String) { pointers.append(UnsafePointer(strdup(text))) }
    mutating func append(copying text: UnsafePointer<CChar>) { pointers.append(UnsafePointer(strdup(text))) }

    /// Calls `body` with them, NULL at the end.
    borrowing func withPointers<Result>(_ body: (UnsafePointer<UnsafePointer<CChar>?>) -> Result) -> Result {
        (pointers + [nil]).withUnsafeBufferPointer { body($0.baseAddress!) }
    }
}

/// The descriptors of one start. At its end those of the child are closed here, and ours unless they were handed out.
private struct Descriptors {
    private(set) var places: [lc_spawn_descriptor] = []
    private var theirs: [Int32] = []
    private var ours: [Int32] = []

    func close() { for descriptor in theirs + ours { closeDescriptor(descriptor) } }

    mutating func place(_ source: Int32, at target: Int32) {
        places.append(lc_spawn_descriptor(source: source, target: target))
    }

    /// - Returns: Our end of the pipe, if it is one.
    mutating func place(_ stream: Command.Stream, at target: Int32) throws(IOError) -> Int32? {
        switch stream {
        case .inherit: return nil
        case .descriptor(let descriptor):
            place(descriptor, at: target)
            return nil
        case .null:
            let null = open("/dev/null", O_RDWR | O_CLOEXEC)
            if null < 0 { throw IOError(errno: errno, operation: "open /dev/null") }
            theirs.append(null)
            place(null, at: target)
            return nil
        case .pipe:
            var (readEnd, writeEnd) = (Int32(-1), Int32(-1))
            let result = lc_pipe_make(&readEnd, &writeEnd)
            if result < 0 { throw IOError(errno: result, operation: "make a pipe") }
            let (near, far) = target == 0 ? (writeEnd, readEnd) : (readEnd, writeEnd)
            ours.append(near)
            theirs.append(far)
            place(far, at: target)
            return near
        }
    }

    mutating func placeError(_ stream: Command.ErrorStream) throws(IOError) -> Int32? {
        switch stream {
        case .inherit: return nil
        case .null: return try place(Command.Stream.null, at: 2)
        case .pipe: return try place(Command.Stream.pipe, at: 2)
        case .descriptor(let descriptor): return try place(Command.Stream.descriptor(descriptor), at: 2)
        case .standardOutput:
            place(places.last { $0.target == 1 }?.source ?? 1, at: 2)
            return nil
        }
    }

    /// Somebody else closes it from here on.
    mutating func handOut(_ descriptor: Int32) { ours.removeAll { $0 == descriptor } }
}

/// A child that was started, and this process's ends of its pipes.
struct StartedChild {
    var child = lc_child(pid: 0, pidfd: -1)
    var input: PipeWriter?
    var output: PipeReader?
    var error: PipeReader?
}

extension Command {
    func start(on core: LoopCore) throws(LoopError) -> StartedChild {
        do { try checkText() } catch { throw .notStarted(program: executable, error) }
        var descriptors = Descriptors()
        defer { descriptors.close() }
        let input: Int32?
        let output: Int32?
        let error: Int32?
        do throws(IOError) {
            input = try descriptors.place(standardInput, at: 0)
            output = try descriptors.place(standardOutput, at: 1)
            error = try descriptors.placeError(standardError)
        } catch { throw .notStarted(program: executable, error) }
        for (target, source) in extraDescriptors { descriptors.place(source, at: target) }

        var started = StartedChild()
        if let input {
            started.input = try PipeWriter(core, input)
            descriptors.handOut(input)
        }
        if let output {
            started.output = try PipeReader(core, output)
            descriptors.handOut(output)
        }
        if let error {
            started.error = try PipeReader(core, error)
            descriptors.handOut(error)
        }
        var step = LC_SPAWN_PREPARE
        let result = start(descriptors.places, &started.child, &step)
        if result < 0 { throw .notStarted(program: executable, IOError(errno: result, operation: describe(step))) }
        return started
    }

    /// What C would cut short, or take for something else, and more than the core can check.
    private func checkText() throws(IOError) {
        func check(_ text: String?, _ what: String) throws(IOError) {
            if text?.utf8.contains(0) == true { throw IOError(errno: EINVAL, operation: "a zero byte in \(what)") }
        }
        try check(executable, "its name")
        try check(name, "its name")
        try check(workingDirectory, "its working directory")
        for argument in arguments { try check(argument, "its arguments") }
        let variables: [String: String?] =
            switch environment {
            case .inherit: [:]
            case .exactly(let variables): variables
            case .updating(let changes): changes
            }
        for (name, value) in variables {
            try check(name, "its environment")
            try check(value, "its environment")
            if name.isEmpty || name.utf8.contains(UInt8(ascii: "=")) {
                throw IOError(errno: EINVAL, operation: "the name \"\(name)\" in its environment")
            }
        }
        if let target = extraDescriptors.keys.first(where: { $0 < 3 }) {
            throw IOError(errno: EINVAL, operation: "extra descriptor \(target), which is less than 3")
        }
        if case .join(let group) = processGroup, group <= 0 {
            throw IOError(errno: EINVAL, operation: "process group \(group)")
        }
    }

    private func describe(_ step: lc_spawn_step) -> String {
        switch step {
        case LC_SPAWN_GROUP: "set its process group"
        case LC_SPAWN_DESCRIPTORS: "set its descriptors"
        case LC_SPAWN_DIRECTORY: "change to \(workingDirectory ?? "")"
        case LC_SPAWN_EXECUTE: "execute it"
        default: "make a process"
        }
    }

    private func start(
        _ places: [lc_spawn_descriptor], _ child: inout lc_child, _ step: inout lc_spawn_step
    ) -> Int32 {
        var spawn = lc_spawn()
        switch processGroup {
        case .inherit: spawn.process_group = Int32(LC_SPAWN_SAME_GROUP)
        case .new: spawn.process_group = 0
        case .join(let group): spawn.process_group = group
        case .newSession: spawn.new_session = true
        }
        var arguments = CStrings()
        arguments.append(name ?? executable)
        for argument in self.arguments { arguments.append(argument) }
        let variables = variables()
        let paths = paths(in: variables)
        let directory = workingDirectory.map { strdup($0)! }
        defer { free(directory) }
        spawn.directory = UnsafePointer(directory)
        spawn.descriptor_count = UInt32(places.count)
        return paths.withPointers { paths in
            arguments.withPointers { arguments in
                variables.withPointers { variables in
                    places.withUnsafeBufferPointer { places in
                        (spawn.paths, spawn.arguments, spawn.environment) = (paths, arguments, variables)
                        spawn.descriptors = places.baseAddress
                        return lc_spawn_start(&spawn, &child, &step)
                    }
                }
            }
        }
    }

    /// "NAME=value". What is inherited is copied as it is, whatever its encoding.
    private func variables() -> CStrings {
        var strings = CStrings()
        switch environment {
        case .inherit: Self.inherit(into: &strings) { _ in true }
        case .exactly(let variables):
            for (name, value) in variables { strings.append("\(name)=\(value)") }
        case .updating(let changes):
            Self.inherit(into: &strings) { changes[$0] == nil }
            for case (let name, let value?) in changes { strings.append("\(name)=\(value)") }
        }
        return strings
    }

    private static func inherit(into strings: inout CStrings, _ isWanted: (String) -> Bool) {
        var next = lc_environment()!
        while let entry = next.pointee {
            let length = strcspn(entry, "=")
            let name = UnsafeBufferPointer(start: entry, count: length).map(UInt8.init(bitPattern:))
            if isWanted(String(decoding: name, as: UTF8.self)) { strings.append(copying: entry) }
            next += 1
        }
    }

    /// Where to look for the program.
    private func paths(in variables: borrowing CStrings) -> CStrings {
        var paths = CStrings()
        if executable.utf8.contains(UInt8(ascii: "/")) {
            paths.append(executable)
        } else if !executable.isEmpty {
            let places = variables.withPointers { Self.value(of: "PATH", in: $0) } ?? "/usr/bin:/bin"
            for folder in places.split(separator: ":", omittingEmptySubsequences: false) {
                paths.append(folder.isEmpty ? "./\(executable)" : "\(folder)/\(executable)")
            }
        }
        return paths
    }

    private static func value(of name: String, in variables: UnsafePointer<UnsafePointer<CChar>?>) -> String? {
        let start = name + "="
        var next = variables
        while let entry = next.pointee {
            if strncmp(entry, start, start.utf8.count) == 0 { return String(cString: entry + start.utf8.count) }
            next += 1
        }
        return nil
    }
}
