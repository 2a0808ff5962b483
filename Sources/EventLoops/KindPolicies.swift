// SPDX-License-Identifier: Apache-2.0
//
// KindPolicies.swift: policies that differ from the default in the kind of loop they make.

import CLoopCore
import Synchronization

/// Makes a ``SelectorLoop``, always. Everything else as ``DefaultLoopPolicy``.
open class SelectorLoopPolicy: DefaultLoopPolicy, @unchecked Sendable {
    /// What loops are made with, unless ``Loops/run(on:options:_:)`` says otherwise.
    public let options: LoopOptions

    public init(options: LoopOptions = LoopOptions(), autoCreate: Bool = true) {
        self.options = options
        super.init(autoCreate: autoCreate)
    }

    /// Makes a ``SelectorLoop``. Any thread.
    /// - Throws: As its initialiser.
    open override func makeLoop() throws(LoopError) -> any Loop {
        try SelectorLoop(options: ThreadSlots.current.options ?? options, selection: selection(.selector))
    }
}

/// Makes a ``ProactorLoop``, or fails. Everything else as ``DefaultLoopPolicy``.
open class ProactorLoopPolicy: DefaultLoopPolicy, @unchecked Sendable {
    /// What loops are made with, unless ``Loops/run(on:options:_:)`` says otherwise.
    public let options: LoopOptions

    public init(options: LoopOptions = LoopOptions(), autoCreate: Bool = true) {
        self.options = options
        super.init(autoCreate: autoCreate)
    }

    /// Makes a ``ProactorLoop``. Any thread.
    /// - Throws: As its initialiser: `.unavailable` where io_uring cannot be had. There is no falling back.
    open override func makeLoop() throws(LoopError) -> any Loop {
        try ProactorLoop(options: ThreadSlots.current.options ?? options, selection: selection(.proactor))
    }
}

/// Makes a ``ProactorLoop``; where this kernel or its policy refuses io_uring, a ``SelectorLoop``. Everything else as
/// ``DefaultLoopPolicy``.
///
/// The loop's ``Loop/selection`` says which it became, and why; the first time in a process that io_uring is refused,
/// so does a line on standard error.
open class BestLoopPolicy: DefaultLoopPolicy, @unchecked Sendable {
    typealias Maker = @Sendable (LoopOptions, LoopSelection) throws(LoopError) -> any Loop

    /// What loops are made with, unless ``Loops/run(on:options:_:)`` says otherwise.
    public let options: LoopOptions
    private let makeProactor: Maker
    private let makeSelector: Maker

    public convenience init(options: LoopOptions = LoopOptions(), autoCreate: Bool = true) {
        self.init(
            options: options, autoCreate: autoCreate,
            makeProactor: { (options, selection) throws(LoopError) in
                try ProactorLoop(options: options, selection: selection)
            },
            makeSelector: { (options, selection) throws(LoopError) in
                try SelectorLoop(options: options, selection: selection)
            })
    }

    init(
        options: LoopOptions = LoopOptions(), autoCreate: Bool = true, makeProactor: @escaping Maker,
        makeSelector: @escaping Maker
    ) {
        self.options = options
        self.makeProactor = makeProactor
        self.makeSelector = makeSelector
        super.init(autoCreate: autoCreate)
    }

    convenience init(resolvedBy origin: LoopPolicyOrigin) {
        self.init()
        resolved(by: origin)
    }

    /// Makes the best loop that can be had here. Any thread. What the kernel answers is asked anew each time.
    /// - Throws: `.io` when descriptors or memory are short: that would befall the other kind too, and must be seen.
    open override func makeLoop() throws(LoopError) -> any Loop {
        let options = ThreadSlots.current.options ?? self.options
        do {
            return try makeProactor(options, selection(.proactor, because: "io_uring is available"))
        } catch {
            guard case .unavailable(let unavailability) = error, unavailability.allowsFallback else { throw error }
            if !fallbackWasReported.exchange(true, ordering: .relaxed) {
                writeToStandardError("swift-event-loops: using a selector loop. \(unavailability)")
            }
            return try makeSelector(options, selection(.selector, because: "\(unavailability)"))
        }
    }
}

private let fallbackWasReported = Atomic(false)
