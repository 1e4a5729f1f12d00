// A token ledger: balances, supply, a log of every change and a certified tip.
import Blob "mo:core/Blob";
import CertifiedData "mo:core/CertifiedData";
import Error "mo:core/Error";
import List "mo:core/List";
import Map "mo:core/Map";
import Nat "mo:core/Nat";
import Nat64 "mo:core/Nat64";
import Nat8 "mo:core/Nat8";
import Principal "mo:core/Principal";
import Time "mo:core/Time";

shared ({ caller = minter }) persistent actor class Ledger(tokenName : Text, initialSupply : Nat) {
  public type Kind = { #mint; #transfer; #burn };
  public type Entry = {
    kind : Kind;
    from : Principal;
    to : Principal;
    amount : Nat;
    memo : Nat64;
    at : Int;
  };
  public type TransferError = {
    #insufficientFunds : { balance : Nat };
    #zeroAmount;
  };
  public type Receipt = { #ok : Nat; #err : TransferError };

  let name_ = tokenName;
  let balances = Map.empty<Principal, Nat>();
  let entries = List.empty<Entry>();
  var supply : Nat = 0;
  var upgrades : Nat = 0;
  transient var sinceStart : Nat = 0;

  func balance(account : Principal) : Nat {
    switch (Map.get(balances, Principal.compare, account)) {
      case (?amount) amount;
      case null 0;
    };
  };

  func setBalance(account : Principal, amount : Nat) {
    if (amount == 0) {
      ignore Map.delete(balances, Principal.compare, account);
    } else {
      Map.add(balances, Principal.compare, account, amount);
    };
  };

  // The tip is the height and the supply, each as 16 bytes, little endian.
  func certify() {
    CertifiedData.set(Blob.fromArray(tip()));
  };

  func tip() : [Nat8] {
    let bytes = List.empty<Nat8>();
    for (value in [List.size(entries), supply].vals()) {
      var rest = value;
      for (_ in Nat.range(0, 16)) {
        List.add(bytes, Nat8.fromNat(rest % 256));
        rest /= 256;
      };
    };
    List.toArray(bytes);
  };

  func record(kind : Kind, from : Principal, to : Principal, amount : Nat, memo : Nat64) : Nat {
    List.add(entries, { kind; from; to; amount; memo; at = Time.now() });
    sinceStart += 1;
    certify();
    List.size(entries);
  };

  func credit(account : Principal, amount : Nat) {
    setBalance(account, balance(account) + amount);
  };

  // A class body runs again after an upgrade; only a first start mints.
  if (List.size(entries) == 0 and initialSupply > 0) {
    credit(minter, initialSupply);
    supply += initialSupply;
    ignore record(#mint, minter, minter, initialSupply, 0);
  };

  public query func name() : async Text { name_ };
  public query func totalSupply() : async Nat { supply };
  public query func balanceOf(account : Principal) : async Nat { balance(account) };
  public query func holders() : async Nat { Map.size(balances) };
  public query func height() : async Nat { List.size(entries) };
  public query func entriesSinceStart() : async Nat { sinceStart };
  public query func upgradeCount() : async Nat { upgrades };
  public query func tipHash() : async Blob { Blob.fromArray(tip()) };
  public query func certificate() : async ?Blob { CertifiedData.getCertificate() };
  public shared query ({ caller }) func whoami() : async Principal { caller };

  // The sum of all balances: equal to the supply, or the ledger is broken.
  public query func audit() : async Nat {
    var sum = 0;
    for ((_, amount) in Map.entries(balances)) { sum += amount };
    sum;
  };

  public query func history(start : Nat, length : Nat) : async [Entry] {
    let page = List.empty<Entry>();
    let end = Nat.min(start + length, List.size(entries));
    var index = start;
    while (index < end) {
      List.add(page, List.at(entries, index));
      index += 1;
    };
    List.toArray(page);
  };

  public shared ({ caller }) func transfer(to : Principal, amount : Nat, memo : Nat64) : async Receipt {
    if (amount == 0) return #err(#zeroAmount);
    let available = balance(caller);
    if (available < amount) return #err(#insufficientFunds { balance = available });
    setBalance(caller, available - amount);
    credit(to, amount);
    #ok(record(#transfer, caller, to, amount, memo));
  };

  // Anybody but the minter is rejected, with an explicit message.
  public shared ({ caller }) func mint(to : Principal, amount : Nat) : async Nat {
    if (caller != minter) throw Error.reject("only the minter may mint");
    credit(to, amount);
    supply += amount;
    record(#mint, caller, to, amount, 0);
  };

  // Rejects on insufficient funds: nothing is written before the throw.
  public shared ({ caller }) func burn(amount : Nat) : async Nat {
    let available = balance(caller);
    if (available < amount) {
      throw Error.reject("insufficient funds: " # Nat.toText(available) # " of " # Nat.toText(amount));
    };
    setBalance(caller, available - amount);
    supply -= amount;
    record(#burn, caller, caller, amount, 0);
  };

  // Credits first, then traps on the subtraction if the caller has too little: the credit must not last.
  public shared ({ caller }) func transferOrTrap(to : Principal, amount : Nat) : async Nat {
    credit(to, amount);
    setBalance(caller, balance(caller) - amount : Nat);
    record(#transfer, caller, to, amount, 0);
  };

  system func postupgrade() {
    upgrades += 1;
    certify();
  };
};
