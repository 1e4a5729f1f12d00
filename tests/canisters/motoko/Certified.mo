// Certified data: 32 bytes at most, set in updates, read with a certificate in queries.
import Blob "mo:core/Blob";
import CertifiedData "mo:core/CertifiedData";
import Nat "mo:core/Nat";

persistent actor Certified {
  var current : Blob = "";
  var writes : Nat = 0;

  public func set(data : Blob) : async Nat {
    writes += 1;
    current := data;
    CertifiedData.set(data);
    writes;
  };

  public query func get() : async { data : Blob; certificate : ?Blob } {
    { data = current; certificate = CertifiedData.getCertificate() };
  };

  public func certificateInUpdate() : async ?Blob { CertifiedData.getCertificate() };

  public query func setInQuery(data : Blob) : async () { CertifiedData.set(data) };

  // Stable across upgrades; certified data itself is set again here.
  system func postupgrade() { CertifiedData.set(current) };
};
