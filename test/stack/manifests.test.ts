// No Docker and no Kubernetes run these files in the tests: what is checked is that they parse, that what
// they name exists, and that they agree with the configurations, which do run.
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { otelConfig } from '../../exporter/demo/stack/commands.ts'
import { documentedPorts } from '../../exporter/demo/stack/ports.ts'

const read = (path: string): string => readFileSync(join(otelConfig, path), 'utf8')

/** Every document of a file as plain objects; a defect of the YAML is an error. */
function documents<T>(path: string): T[] {
  return parseAllDocuments(read(path)).map((document) => {
    expect(document.errors).toEqual([])
    return document.toJS() as T
  })
}

/** Variables that a Collector or Jaeger configuration reads. */
function variables(path: string): string[] {
  return [...read(path).matchAll(/\$\{env:([A-Z_0-9]+)/g)].map((match) => match[1] as string)
}

const pinned = /^[\w.-]+(\/[\w.-]+)+:v?\d+\.\d+\.\d+$/

interface Service {
  readonly image: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly volumes?: readonly string[]
  readonly ports?: readonly string[]
  readonly depends_on?: readonly string[]
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, null>>
}

const compose = parse(read('compose.yaml')) as Compose
const services = Object.entries(compose.services)

describe('compose.yaml', () => {
  test('has the five parts of the view, each at a pinned version', () => {
    expect(services.map(([name]) => name)).toEqual([
      'collector',
      'jaeger',
      'prometheus',
      'alertmanager',
      'grafana',
    ])
    for (const [, { image }] of services) expect(image).toMatch(pinned)
  })

  test('mounts only files and folders that exist, and volumes that it declares', () => {
    for (const [, { volumes = [] }] of services) {
      for (const volume of volumes) {
        const [source = ''] = volume.split(':')
        if (source.startsWith('.'))
          expect([source, existsSync(join(otelConfig, source))]).toEqual([source, true])
        else expect(Object.keys(compose.volumes)).toContain(source)
      }
    }
  })

  test('passes every file on its command lines at the place where it is mounted', () => {
    for (const [, { command = [], volumes = [] }] of services) {
      const file = command.map((one) => /^--config(?:\.file)?=(.+)$/.exec(one)?.[1]).find(Boolean)
      if (file === undefined) continue
      const mount = volumes
        .map((volume) => volume.split(':'))
        .find(([, target = '']) => file === target || file.startsWith(`${target}/`))
      const [source = '', target = ''] = mount ?? []
      const path = resolve(otelConfig, source, file.slice(target.length + 1))
      expect([file, existsSync(path) && statSync(path).isFile()]).toEqual([file, true])
    }
  })

  test('publishes the documented ports, on loopback alone', () => {
    const published = services.flatMap(([, { ports = [] }]) => ports)
    for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:(\d+):\1$/)
    const { otlpGrpc, otlpHttp, jaegerQuery, prometheus, alertmanager } = documentedPorts
    const wanted = [otlpGrpc, otlpHttp, jaegerQuery, prometheus, alertmanager, 3000]
    expect(published.map((port) => Number(port.split(':').at(-1)))).toEqual(wanted)
  })

  test('sets only variables that the configurations read', () => {
    const known = [
      ...variables('collector/jaeger-prometheus.yaml'),
      ...variables('jaeger/jaeger.yaml'),
    ]
    for (const name of ['collector', 'jaeger']) {
      const set = Object.keys(compose.services[name]?.environment ?? {})
      expect(set.filter((variable) => !known.includes(variable))).toEqual([])
    }
    const datasources = read('grafana/provisioning/datasources/ring2.yaml')
    const used = [...datasources.matchAll(/\$\{([A-Z_]+)\}/g)].map((match) => match[1] as string)
    const given = Object.keys(compose.services.grafana?.environment ?? {})
    expect(used.filter((variable) => !given.includes(variable))).toEqual([])
  })

  test('gives Prometheus the names of the containers, in the files that its configuration reads', () => {
    for (const [file, target] of [
      ['alertmanager.yaml', `alertmanager:${documentedPorts.alertmanager}`],
      ['otelcol.yaml', `collector:${documentedPorts.collectorMetrics}`],
    ] as const) {
      expect(read('prometheus/prometheus.yml')).toContain(`targets/${file}`)
      expect(parse(read(`prometheus/targets-compose/${file}`))).toEqual([{ targets: [target] }])
      const local = target.replace(/^\w+/, '127.0.0.1')
      expect(parse(read(`prometheus/targets/${file}`))).toEqual([{ targets: [local] }])
    }
  })
})

describe('Grafana’s provisioning', () => {
  test('links exemplars to the trace by the label that Prometheus gives them', () => {
    const { datasources } = parse(read('grafana/provisioning/datasources/ring2.yaml')) as {
      datasources: { uid: string; type: string; jsonData: Record<string, unknown> }[]
    }
    const byType = Object.fromEntries(datasources.map((source) => [source.type, source]))
    expect(byType.prometheus?.jsonData.exemplarTraceIdDestinations).toEqual([
      { name: 'trace_id', datasourceUid: byType.jaeger?.uid },
    ])
    expect(byType.jaeger?.jsonData.tracesToMetrics).toMatchObject({
      datasourceUid: byType.prometheus?.uid,
    })
  })

  test('reads the dashboards where compose mounts them', () => {
    const { providers } = parse(read('grafana/provisioning/dashboards/ring2.yaml')) as {
      providers: { options: { path: string } }[]
    }
    const mounts = compose.services.grafana?.volumes?.map((volume) => volume.split(':')[1])
    expect(mounts).toContain(providers[0]?.options.path)
  })
})

interface Container {
  readonly name: string
  readonly image: string
  readonly env?: readonly { readonly name: string }[]
  readonly envFrom?: readonly { readonly configMapRef: { readonly name: string } }[]
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[]
  readonly volumeMounts: readonly { readonly name: string }[]
  readonly resources: { readonly requests: object; readonly limits: object }
  readonly securityContext: Readonly<Record<string, unknown>>
  readonly readinessProbe?: { readonly httpGet: { readonly port: string } }
}

interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly selector: { readonly matchLabels: object }
    readonly serviceName?: string
    readonly ports?: readonly { readonly targetPort: string }[]
    readonly volumeClaimTemplates?: readonly { readonly metadata: { readonly name: string } }[]
    readonly template: {
      readonly metadata: { readonly labels: object }
      readonly spec: {
        readonly serviceAccountName?: string
        readonly securityContext: object
        readonly containers: readonly Container[]
        readonly initContainers?: readonly Container[]
        readonly volumes: readonly {
          readonly name: string
          readonly configMap?: { readonly name: string }
        }[]
      }
    }
  }
}

const kustomization = parse(read('kustomization.yaml')) as {
  readonly resources: readonly string[]
  readonly configMapGenerator: readonly { name: string; files?: string[]; envs?: string[] }[]
  readonly images: readonly { name: string; newTag: string }[]
}
const manifests = kustomization.resources.flatMap((path) => documents<Manifest>(path))
const example = documents<Manifest>('kubernetes/example-model.yaml')
const workloads = [...manifests, ...example].filter(({ kind }) =>
  ['DaemonSet', 'StatefulSet', 'Deployment'].includes(kind),
)
const named = (kind: string) =>
  manifests.filter((one) => one.kind === kind).map((one) => one.metadata.name)

describe('kustomization.yaml', () => {
  test('names files that exist, all below its own folder', () => {
    const generated = kustomization.configMapGenerator.flatMap(({ files = [], envs = [] }) => [
      ...files.map((file) => file.slice(file.indexOf('=') + 1)),
      ...envs,
    ])
    for (const path of [...kustomization.resources, ...generated]) {
      expect(dirname(resolve(otelConfig, path)).startsWith(otelConfig)).toBe(true)
      expect([path, existsSync(join(otelConfig, path))]).toEqual([path, true])
    }
  })

  test('generates every ConfigMap that a pod names, and no other', () => {
    const wanted = workloads.flatMap(({ spec: { template } }) => [
      ...template.spec.volumes.flatMap(({ configMap }) => configMap?.name ?? []),
      ...template.spec.containers.flatMap(({ envFrom = [] }) =>
        envFrom.map(({ configMapRef }) => configMapRef.name),
      ),
    ])
    const generated = kustomization.configMapGenerator.map(({ name }) => name)
    expect(wanted.sort()).toEqual(generated.sort())
  })

  test('runs the version of the Collector that the tests run', () => {
    const version = parse(read('stack/otelcol/builder-config.yaml')).dist.version
    expect(kustomization.images).toEqual([
      { name: 'otel/opentelemetry-collector-contrib', newTag: version },
    ])
    expect(compose.services.collector?.image).toBe(`${kustomization.images[0]?.name}:${version}`)
  })
})

describe.each(workloads.map((one) => [`${one.kind} ${one.metadata.name}`, one] as const))(
  '%s',
  (_name, { spec }) => {
    const pod = spec.template.spec
    const containers = [...(pod.initContainers ?? []), ...pod.containers]

    test('selects its own pods, and mounts only volumes that it has', () => {
      expect(spec.template.metadata.labels).toMatchObject(spec.selector.matchLabels)
      const volumes = [
        ...pod.volumes.map(({ name }) => name),
        ...(spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata.name),
      ]
      for (const { volumeMounts } of containers) {
        expect(
          volumeMounts.map(({ name }) => name).filter((name) => !volumes.includes(name)),
        ).toEqual([])
      }
    })

    test('is pinned, bounded, unprivileged', () => {
      expect(pod.securityContext).toMatchObject({
        runAsNonRoot: true,
        seccompProfile: { type: 'RuntimeDefault' },
      })
      for (const { image, resources, securityContext } of containers) {
        expect(image).toMatch(pinned)
        expect(resources).toMatchObject({
          requests: { cpu: expect.anything(), memory: expect.anything() },
          limits: { memory: expect.anything() },
        })
        expect(securityContext).toMatchObject({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        })
      }
    })
  },
)

describe('The Collectors in Kubernetes', () => {
  test.each([
    ['DaemonSet', 'kubernetes/collector-agent.yaml'],
    ['StatefulSet', 'collector/production.yaml'],
  ])(
    '%s sets only variables that its configuration reads, and probes a port that it has',
    (kind, config) => {
      const [workload] = workloads.filter((one) => one.kind === kind)
      const [container] = workload?.spec.template.spec.containers ?? []
      const known = [...variables(config), 'GOMEMLIMIT', 'NODE_IP']
      const set = (container?.env ?? []).map(({ name }) => name)
      expect(set.filter((name) => !known.includes(name))).toEqual([])
      const ports = container?.ports.map(({ name }) => name)
      expect(ports).toContain(container?.readinessProbe?.httpGet.port)
      expect(named('ServiceAccount')).toContain(workload?.spec.template.spec.serviceAccountName)
    },
  )

  test('gives the gateway only variables that its configuration reads', () => {
    const names = read('kubernetes/gateway.env')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.slice(0, line.indexOf('=')))
    const known = variables('collector/production.yaml')
    expect(names.filter((name) => !known.includes(name))).toEqual([])
  })

  test('find each other by services that exist', () => {
    const [agent] = workloads.filter(({ kind }) => kind === 'DaemonSet')
    const environment = (agent?.spec.template.spec.containers[0]?.env ?? []) as {
      name: string
      value?: string
    }[]
    const hosts = ['GATEWAY_HEADLESS_HOST', 'GATEWAY_ENDPOINT'].map(
      (name) => environment.find((one) => one.name === name)?.value?.split('.')[0],
    )
    expect(hosts).toEqual(['ring2-gateway-headless', 'ring2-gateway'])
    expect(named('Service')).toEqual(hosts)
    const [gateway] = workloads.filter(({ kind }) => kind === 'StatefulSet')
    expect(gateway?.spec.serviceName).toBe(hosts[0])
    const ports = gateway?.spec.template.spec.containers[0]?.ports.map(({ name }) => name) ?? []
    for (const { kind, spec } of manifests) {
      if (kind !== 'Service') continue
      expect(
        spec.ports?.map(({ targetPort }) => targetPort).filter((p) => !ports.includes(p)),
      ).toEqual([])
    }
  })
})
