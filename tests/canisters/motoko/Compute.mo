// Work for the engine: recursion, big numbers, sorting, floats, allocation, stable memory.
import Array "mo:core/Array";
import Float "mo:core/Float";
import InternetComputer "mo:core/InternetComputer";
import List "mo:core/List";
import Nat "mo:core/Nat";
import Nat32 "mo:core/Nat32";
import Nat64 "mo:core/Nat64";
import Nat8 "mo:core/Nat8";
import Region "mo:core/Region";
import Text "mo:core/Text";
import VarArray "mo:core/VarArray";

persistent actor Compute {
  let region = Region.new();
  let kept = List.empty<[var Nat64]>();

  public query func fib(n : Nat) : async Nat {
    func go(k : Nat) : Nat { if (k < 2) k else go(k - 1 : Nat) + go(k - 2 : Nat) };
    go(n);
  };

  public query func factorial(n : Nat) : async Nat {
    var product = 1;
    for (factor in Nat.range(1, n + 1)) { product *= factor };
    product;
  };

  public query func sortMedian(n : Nat) : async Nat32 {
    var seed : Nat32 = 2463534242;
    let values = Array.tabulate<Nat32>(n, func _ { seed := seed *% 1664525 +% 1013904223; seed });
    Array.sort(values, Nat32.compare)[n / 2];
  };

  public query func primesBelow(n : Nat) : async Nat {
    let crossed = VarArray.repeat<Bool>(false, n);
    var count = 0;
    var candidate = 2;
    while (candidate < n) {
      if (not crossed[candidate]) {
        count += 1;
        var multiple = candidate * candidate;
        while (multiple < n) {
          crossed[multiple] := true;
          multiple += candidate;
        };
      };
      candidate += 1;
    };
    count;
  };

  public query func matrixTrace(n : Nat) : async Float {
    let a = Array.tabulate<Float>(n * n, func i { Float.fromInt(i % 7) + 0.5 });
    var trace = 0.0;
    for (i in Nat.range(0, n)) {
      for (k in Nat.range(0, n)) { trace += a[i * n + k] * a[k * n + i] };
    };
    trace;
  };

  public query func textLength(n : Nat) : async Nat {
    var text = "";
    for (i in Nat.range(0, n)) { text #= Nat.toText(i) };
    text.size();
  };

  // Garbage for the collector: only the last list survives.
  public func churn(rounds : Nat, length : Nat) : async Nat {
    var last = List.empty<Nat>();
    for (round in Nat.range(0, rounds)) {
      let fresh = List.empty<Nat>();
      for (i in Nat.range(0, length)) { List.add(fresh, round * 1_000_000_007 + i) };
      last := fresh;
    };
    List.size(last);
  };

  // Keeps `words` words of heap; the number of blocks kept so far.
  public func grow(words : Nat) : async Nat {
    List.add(kept, VarArray.repeat<Nat64>(7, words));
    List.size(kept);
  };

  public func release() : async () { List.clear(kept) };

  // Grows the region by `pages`, writes at both ends of the new part and reads back.
  public func growRegion(pages : Nat64) : async Nat64 {
    let start = Region.grow(region, pages) * 65536;
    let end = Region.size(region) * 65536;
    Region.storeNat64(region, start, 0x0123456789abcdef);
    Region.storeNat8(region, end - 1, 42);
    assert Region.loadNat64(region, start) == 0x0123456789abcdef;
    Region.size(region) + Nat64.fromNat(Nat8.toNat(Region.loadNat8(region, end - 1)));
  };

  public func store(offset : Nat64, bytes : Blob) : async () { Region.storeBlob(region, offset, bytes) };
  public query func load(offset : Nat64, size : Nat) : async Blob { Region.loadBlob(region, offset, size) };

  public query func instructionsOf(n : Nat) : async Nat64 {
    InternetComputer.countInstructions(func() { var i = 0; while (i < n) { i += 1 } });
  };

  public query func depth(n : Nat) : async Nat {
    func go(k : Nat) : Nat { if (k == 0) 0 else 1 + go(k - 1 : Nat) };
    go(n);
  };

  public query func divide(a : Nat, b : Nat) : async Nat { a / b };
  public query func at(index : Nat) : async Nat { [11, 12, 13][index] };
  public query func spin() : async () { loop {} };
};
