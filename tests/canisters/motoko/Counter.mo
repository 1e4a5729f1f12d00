// A counter that an upgrade must not lose, and a transient one that it must.
import Debug "mo:core/Debug";
import Nat "mo:core/Nat";

persistent actor Counter {
  var value : Nat = 0;
  transient var calls : Nat = 0;

  public func inc() : async Nat {
    value += 1;
    calls += 1;
    value;
  };

  public func add(amount : Nat) : async Nat {
    value += amount;
    calls += 1;
    value;
  };

  // Traps on a negative result, after writing.
  public func sub(amount : Nat) : async Nat {
    calls += 1;
    value -= amount;
    value;
  };

  public func set(to : Nat) : async () { value := to };

  public func fail() : async () {
    value += 100;
    assert false;
  };

  public func print(line : Text) : async () { Debug.print(line # " " # Nat.toText(value)) };

  public query func get() : async Nat { value };
  public query func getCalls() : async Nat { calls };

  // A query may write; what it writes is dropped.
  public query func incInQuery() : async Nat {
    value += 1;
    value;
  };

  system func preupgrade() { Debug.print("counter: pre_upgrade at " # Nat.toText(value)) };
  system func postupgrade() {
    calls := 1000;
    Debug.print("counter: post_upgrade at " # Nat.toText(value));
  };
  system func inspect({ arg : Blob }) : Bool { arg.size() < 100_000 };
};
