// SPDX-License-Identifier: Apache-2.0
//
// LoopPolicy.swift: what a policy is: the current loop of a context, and how new loops are made.

/// Says which loop is current in a context, and makes new ones.
///
/// One policy serves the whole process: ``LoopPolicies/current``. What a context is, is the policy's to say; for
/// ``DefaultLoopPolicy`` it is the thread. To change one behaviour, subclass that; to change them all, meet this
/// protocol. Every member may be called from any thread. Source: asyncio's `AbstractEventLoopPolicy`.
public protocol LoopPolicy: AnyObject, Sendable {
    /// The loop of the calling context.
    /// - Returns: The loop that runs here, if one does; else the loop that was set; else, where the policy makes one by
    ///   itself, a new loop, which is set from then on.
    /// - Throws: `.noCurrentLoop` where there is none and the policy does not make one; what ``makeLoop()`` throws.
    func currentLoop() throws(LoopError) -> any Loop

    /// Sets the loop of the calling context; `nil`: there is none. Neither starts, stops nor closes a loop, and does
    /// not change which one is running.
    func setCurrentLoop(_ loop: (any Loop)?)

    /// Makes a loop, anew on each call, by this policy's rules. It is not set as the current one.
    /// - Throws: `.unavailable` when the kind wanted cannot be had here; `.io` when descriptors or memory are short.
    func makeLoop() throws(LoopError) -> any Loop
}
