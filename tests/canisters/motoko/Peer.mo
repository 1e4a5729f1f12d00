// Two or more of these call each other: replies, rejects, traps, cycles, one-way calls and composite queries.
import Cycles "mo:core/Cycles";
import Debug "mo:core/Debug";
import Error "mo:core/Error";
import List "mo:core/List";
import Nat "mo:core/Nat";
import Principal "mo:core/Principal";

persistent actor Peer {
  type Remote = actor {
    ping : shared (Principal, Nat) -> async Nat;
    get : shared query () -> async Nat;
    getComposite : shared composite query (Principal) -> async Nat;
    bump : shared Nat -> async Nat;
    bumpOneWay : shared Nat -> ();
    trapAfterWrite : shared () -> async ();
    refuse : shared Text -> async ();
    accept : shared Nat -> async Nat;
    noSuchMethod : shared () -> async ();
  };

  var value : Nat = 0;
  var finallyRan : Nat = 0;

  func remote(peer : Principal) : Remote { actor (Principal.toText(peer)) };

  func describe(error : Error) : Text {
    debug_show (Error.code(error)) # " " # Error.message(error);
  };

  public query func get() : async Nat { value };
  public query func finallyCount() : async Nat { finallyRan };

  public func bump(by : Nat) : async Nat {
    value += by;
    value;
  };

  public func bumpOneWay(by : Nat) { value += by };

  // Bounces between the two canisters `hops` times; both count each visit.
  public func ping(peer : Principal, hops : Nat) : async Nat {
    value += 1;
    if (hops == 0) return 0;
    let rest = await remote(peer).ping(Principal.fromActor(Peer), hops - 1 : Nat);
    value += 1000;
    rest + 1;
  };

  public func trapAfterWrite() : async () {
    value += 50;
    assert false;
  };

  public func refuse(text : Text) : async () { throw Error.reject(text) };

  public func tryTrap(peer : Principal) : async Text {
    value += 1;
    try {
      await remote(peer).trapAfterWrite();
      "no error";
    } catch error {
      value += 10;
      describe(error);
    };
  };

  public func tryRefuse(peer : Principal, text : Text) : async Text {
    try {
      await remote(peer).refuse(text);
      "no error";
    } catch error { describe(error) };
  };

  public func tryMissing(peer : Principal) : async Text {
    try {
      await remote(peer).noSuchMethod();
      "no error";
    } catch error { describe(error) };
  };

  // Traps in the callback: what was written before the await stays, what came after goes, `finally` runs.
  public func trapInCallback(peer : Principal) : async Nat {
    value += 1;
    try {
      ignore await remote(peer).get();
      value += 100;
      assert false;
      value;
    } finally {
      finallyRan += 1;
      Debug.print("finally");
    };
  };

  // `width` calls in flight at once; the sum of what they return.
  public func fanOut(peer : Principal, width : Nat) : async Nat {
    let pending = List.empty<async Nat>();
    for (_ in Nat.range(0, width)) { List.add(pending, remote(peer).bump(1)) };
    var sum = 0;
    for (call in List.values(pending)) { sum += await call };
    sum;
  };

  public func notify(peer : Principal, by : Nat) : async () { remote(peer).bumpOneWay(by) };

  // A call to itself: a new message, after this one.
  public func countDown(steps : Nat) : async Nat {
    if (steps == 0) return 0;
    1 + (await countDown(steps - 1 : Nat));
  };

  // Takes at most `limit` of the cycles offered.
  public func accept(limit : Nat) : async Nat {
    Cycles.accept<system>(Nat.min(Cycles.available(), limit));
  };

  // What the peer took, and what came back.
  public func sendCycles(peer : Principal, amount : Nat, limit : Nat) : async (Nat, Nat) {
    let taken = await (with cycles = amount) remote(peer).accept(limit);
    (taken, Cycles.refunded());
  };

  public query func cycles() : async Nat { Cycles.balance() };

  public composite query func getComposite(peer : Principal) : async Nat {
    (await remote(peer).get()) + value;
  };

  // Another canister's composite query, seen through a second one: two levels of calls.
  public composite query func getTwice(peer : Principal) : async Nat {
    await remote(peer).getComposite(peer);
  };
};
