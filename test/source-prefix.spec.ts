import { expect } from 'aegir/chai'
import { sourcePrefix } from '../src/transport/source-prefix.ts'

describe('the part of the network that a host belongs to', () => {
  const parts: Record<string, string[]> = {
    '192.0.2.0/24': ['192.0.2.0', '192.0.2.1', '192.0.2.255', '::ffff:192.0.2.1', '::FFFF:192.0.2.9', '::ffff:c000:2ff', '0:0:0:0:0:ffff:192.0.2.1', '0:0:0:0:0:ffff:c000:201'],
    '192.0.3.0/24': ['192.0.3.1', '::ffff:192.0.3.1'],
    '0:0:0::/48': ['::', '::1', '0:0:0:0:0:0:0:1', '::192.0.2.1', '::fffe:192.0.2.1', '::1:ffff:192.0.2.1'],
    '2001:db8:0::/48': ['2001:db8::', '2001:db8::1', '2001:DB8::1', '2001:0db8:0000::', '2001:db8:0:1::', '2001:db8:0:ffff:ffff:ffff:ffff:ffff', '2001:db8:0:0:0:0:0:1', '2001:db8:0:0:0:0:192.0.2.1', '2001:db8::192.0.2.1'],
    '2001:db8:1::/48': ['2001:db8:1::', '2001:db8:0001:2:3:4:5:6', '2001:db8:1:2:3:4:5::'],
    '2001:0:0::/48': ['2001::', '2001::db8:1'],
    '0:2001:db8::/48': ['::2001:db8:3:4:5:6:7', '0:2001:db8::'],
    '0:1:2::/48': ['::1:2:3:4:5:192.0.2.1'],
    'fe80:0:0::/48': ['fe80::1', 'fe80::1%eth0', 'fe80::1:2%12', 'fe80:0:0:0:0:0:0:1%eth0.100']
  }

  for (const [part, hosts] of Object.entries(parts)) {
    it(`is ${part} for ${hosts.join(', ')}`, () => {
      expect(hosts.map(sourcePrefix)).to.deep.equal(hosts.map(() => part))
    })
  }

  it('is the host itself in a network of another kind', () => {
    for (const host of ['alice', 'relay-7', '1.2.3', '192.0.2.256', 'a:b', '']) {
      expect(sourcePrefix(host)).to.equal(host)
    }
  })
})
