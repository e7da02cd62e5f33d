/**
 * The cmdlets about network adapters: which addresses a guest's cards get after a failover to this host. A card is named by its MAC or
 * by its interface inside of the guest, and has an IPv4 and an IPv6 side.
 */

import { UnderstudyError } from '../../model/errors.ts';
import type { Params, Vm } from '../../server/api/contract.ts';
import { forEachVm, namesGiven, numberOf, PASSTHRU, pick, textOf, truthOf, VM_NAME } from './cmdlet.ts';
import type { Cmdlet, CmdletContext } from './cmdlet.ts';
import type { Bound, Parameter } from './parameters.ts';
import { failoverConfigurationRow } from './records.ts';
import type { GuestAddress, Row } from './records.ts';
import { isWildcard, matches } from './wildcard.ts';

type Family = 'IPv4' | 'IPv6';
type Addresses = NonNullable<NonNullable<Params<'set'>['hypervisor']>['addresses']>;

const GET_NAME = 'Get-VMNetworkAdapterFailoverConfiguration';
const SET_NAME = 'Set-VMNetworkAdapterFailoverConfiguration';
const CARD: Parameter = { name: 'VMNetworkAdapterName', type: 'string', aliases: ['Card'] };

export const familyOf = ({ address }: { address: string }): Family => (address.includes(':') ? 'IPv6' : 'IPv4');

const addressesOf = (vm: Vm): GuestAddress[] => (vm.hypervisor?.['addresses'] ?? []) as GuestAddress[];

async function vmsGiven(bound: Bound, context: CmdletContext, input: readonly Row[] | null): Promise<Vm[]> {
  const all = await context.call('vm.list', {});
  const meant = new Map<string, Vm>();
  for (const pattern of namesGiven(bound, input) ?? ['*']) {
    const found = pick(all, pattern, ({ name }) => name);
    // The host itself answers for a name that is not among them.
    for (const vm of found.length > 0 || isWildcard(pattern) ? found : [await context.call('vm.show', { name: pattern })]) meant.set(vm.name, vm);
  }
  return [...meant.values()];
}

const GET: Cmdlet = {
  name: GET_NAME,
  summary: 'Addresses that network cards of a guest get after a failover to this host',
  parameters: [VM_NAME, CARD],
  async run(bound, context, input) {
    const wanted = textOf(bound, CARD.name);
    return (await vmsGiven(bound, context, input)).flatMap((vm) => {
      const byCard = Map.groupBy(addressesOf(vm), ({ card }) => card);
      return [...byCard].filter(([card]) => wanted === undefined || matches(wanted, card))
        .map(([card, addresses]) => failoverConfigurationRow(vm, card, {
          IPv4: addresses.find((each) => familyOf(each) === 'IPv4'), IPv6: addresses.find((each) => familyOf(each) === 'IPv6') }));
    });
  },
};

const SET: Cmdlet = {
  name: SET_NAME,
  summary: 'Sets or clears them; the guest agent gives them to the guest',
  parameters: [
    VM_NAME,
    CARD,
    ...(['IPv4', 'IPv6'] as const).flatMap((family): Parameter[] => [
      { name: `${family}Address`, type: 'string' },
      family === 'IPv4' ? { name: 'IPv4SubnetMask', type: 'string' } : { name: 'IPv6SubnetPrefixLength', type: 'int' },
      { name: `${family}DefaultGateway`, type: 'string' },
      { name: `${family}PreferredDNSServer`, type: 'string' },
      { name: `${family}AlternateDNSServer`, type: 'string' },
      { name: `ClearFailover${family}Settings`, type: 'switch' },
    ]),
    PASSTHRU,
  ],
  async run(bound, context, input) {
    const given = SET.parameters.filter(({ name }) => /^(IPv|Clear)/.test(name) && bound.has(name));
    if (given.length === 0) throw missing(`${SET_NAME} is given nothing to change`, `See: Get-Help ${SET_NAME}`);
    await forEachVm(SET_NAME, bound, context, input, async (name) => {
      const before = addressesOf(await context.call('vm.show', { name }));
      const addresses = changed(before, cardOf(bound, before), bound);
      await context.call('set', { name, hypervisor: { addresses } });
    }, 'all');
    return truthOf(bound, 'Passthru') === true ? GET.run(bound, context, input) : [];
  },
};

/** The card that is named, else the only one that has addresses. */
function cardOf(bound: Bound, before: readonly GuestAddress[]): string {
  const named = textOf(bound, CARD.name);
  if (named !== undefined) return named;
  const [only, ...others] = new Set(before.map(({ card }) => card));
  if (only !== undefined && others.length === 0) return only;
  throw missing(`${SET_NAME} needs -${CARD.name}${only === undefined ? '' : `: ${[only, ...others].join(', ')} have addresses`}`,
    'Give the MAC of the card, or the name of its interface inside of the guest.');
}

/** All addresses of the VM after the change; what is not named stays. */
function changed(before: readonly GuestAddress[], card: string, bound: Bound): Addresses {
  const others = before.filter((each) => each.card.toLowerCase() !== card.toLowerCase());
  const sides = (['IPv4', 'IPv6'] as const).map((family) =>
    side(before.find((each) => !others.includes(each) && familyOf(each) === family), family, card, bound));
  return [...others, ...sides.filter((each) => each !== null)];
}

function side(before: GuestAddress | undefined, family: Family, card: string, bound: Bound): GuestAddress | null {
  if (truthOf(bound, `ClearFailover${family}Settings`) === true) return null;
  const address = textOf(bound, `${family}Address`) ?? before?.address;
  const gateway = textOf(bound, `${family}DefaultGateway`);
  const prefix = family === 'IPv4' ? prefixOf(textOf(bound, 'IPv4SubnetMask')) : numberOf(bound, 'IPv6SubnetPrefixLength');
  const [preferred, alternate] = [textOf(bound, `${family}PreferredDNSServer`), textOf(bound, `${family}AlternateDNSServer`)];
  if (address === undefined) {
    if ([gateway, prefix, preferred, alternate].every((value) => value === undefined)) return null;
    throw missing(`${SET_NAME} needs -${family}Address for card ${card}`, `Give -${family}Address too.`);
  }
  const wide = prefix ?? before?.prefix;
  const width = family === 'IPv4' ? 'IPv4SubnetMask' : 'IPv6SubnetPrefixLength';
  if (wide === undefined) throw missing(`${SET_NAME} needs -${width} for ${address}`, `Give -${width} too.`);
  const dns = [preferred ?? before?.dns[0], alternate ?? before?.dns[1], ...(before?.dns.slice(2) ?? [])].filter((each) => each !== undefined);
  return { card, address, prefix: wide, gateway: gateway ?? before?.gateway ?? null, dns };
}

/** Bits of a mask as 255.255.255.0, or a length as it is; anything else is refused. */
function prefixOf(mask: string | undefined): number | undefined {
  if (mask === undefined) return undefined;
  if (/^\d{1,2}$/.test(mask)) return Number(mask);
  const parts = mask.split('.').map(Number);
  const bits = parts.map((part) => part.toString(2).padStart(8, '0')).join('');
  if (parts.length === 4 && parts.every((part) => Number.isInteger(part) && part >= 0 && part <= 255) && /^1*0*$/.test(bits)) {
    return bits.replaceAll('0', '').length;
  }
  throw new UnderstudyError('usage', 'ARGUMENT_INVALID', `-IPv4SubnetMask '${mask}' is not a mask`, 'Give it as 255.255.255.0, or its length as 24.');
}

const missing = (what: string, remedy: string): UnderstudyError => new UnderstudyError('usage', 'ARGUMENT_MISSING', what, remedy);

export const NETWORK_CMDLETS: readonly Cmdlet[] = [GET, SET];
