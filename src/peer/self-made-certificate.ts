import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';
import { UnderstudyError } from '../model/errors.ts';
import type { Random } from '../model/ports.ts';

/** Pins do not expire, so neither should what they pin; a fixed end far away keeps other tools content. */
const NOT_AFTER = new Date('2099-12-31T00:00:00Z');
/** Not "now": a host whose clock is behind must be able to use a certificate it made when its clock was right. */
const NOT_BEFORE = new Date('2020-01-01T00:00:00Z');
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/i;

/** Certificate and PKCS #8 key in one PEM text. The name becomes the SAN. Throws HOST_NAME_INVALID (usage). */
export async function makeSelfMadePem(hostName: string, random: Random): Promise<string> {
  if (!DNS_NAME.test(hostName) && isIP(hostName) === 0) {
    throw new UnderstudyError('usage', 'HOST_NAME_INVALID', `"${hostName.slice(0, 255)}" cannot be the name of a host`,
      'Give a DNS name or an IP address with --name.');
  }
  x509.cryptoProvider.set(webcrypto);
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(random),
    // A CN is at most 64 characters; the name that counts is the SAN.
    name: [{ CN: [hostName.slice(0, 64)] }, { O: ['Understudy'] }],
    notBefore: NOT_BEFORE, notAfter: NOT_AFTER, signingAlgorithm: algorithm, keys,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: isIP(hostName) === 0 ? 'dns' : 'ip', value: hostName }]),
    ],
  });
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return `${certificate.toString('pem')}\n${x509.PemConverter.encode(pkcs8, 'PRIVATE KEY')}\n`;
}

/** A positive 128-bit number: the top bit is cleared, the next one set. */
function serialNumber(random: Random): string {
  const bytes = Buffer.from(random.bytes(16));
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes.toString('hex');
}
