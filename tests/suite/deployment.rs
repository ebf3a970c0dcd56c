//! What the files of `deploy` and the `Dockerfile` promise (SUPPLY-03): pods and containers without
//! rights, no secret outside files, and settings that exist.

use std::{fs, path::Path};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::support::is_setting;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    let text = read(path);
    let documents = serde_yaml::Deserializer::from_str(&text).map(Value::deserialize);
    documents.map(|document| document.unwrap_or_else(|error| panic!("{path}: {error}"))).collect()
}

/// Every manifest below `deploy/kubernetes`.
fn manifests() -> Vec<Value> {
    let mut found = Vec::new();
    for folder in ["common", "migrate", "service"] {
        for entry in fs::read_dir(Path::new("deploy/kubernetes").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                found.extend(documents(&path.display().to_string()));
            }
        }
    }
    found
}

fn of_kind<'m>(manifests: &'m [Value], kind: &str) -> Vec<&'m Value> {
    manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
}

/// What a pod has that Pod Security "restricted", and this project, do not allow.
fn faults(pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let expect = |faults: &mut Vec<String>, value: &Value, pointer: &str, expected: Value| {
        if *value.pointer(pointer).unwrap_or(&Value::Null) != expected {
            faults.push(format!("{pointer} is not {expected}"));
        }
    };
    expect(&mut faults, pod, "/automountServiceAccountToken", json!(false));
    expect(&mut faults, pod, "/enableServiceLinks", json!(false));
    expect(&mut faults, pod, "/securityContext/runAsNonRoot", json!(true));
    expect(&mut faults, pod, "/securityContext/seccompProfile/type", json!("RuntimeDefault"));
    for absent in ["/hostNetwork", "/hostPID", "/hostIPC", "/initContainers", "/ephemeralContainers"] {
        expect(&mut faults, pod, absent, Value::Null);
    }
    for container in pod["containers"].as_array().unwrap() {
        expect(&mut faults, container, "/securityContext/allowPrivilegeEscalation", json!(false));
        expect(&mut faults, container, "/securityContext/readOnlyRootFilesystem", json!(true));
        expect(&mut faults, container, "/securityContext/capabilities", json!({ "drop": ["ALL"] }));
        for absent in ["privileged", "runAsUser", "runAsNonRoot", "seccompProfile", "procMount"] {
            expect(&mut faults, container, &format!("/securityContext/{absent}"), Value::Null);
        }
        // An overlay names it, by digest.
        expect(&mut faults, container, "/image", json!("service"));
        for limit in ["/resources/limits/memory", "/resources/limits/cpu", "/resources/requests/memory"] {
            if container.pointer(limit).is_none() {
                faults.push(format!("no {limit}"));
            }
        }
    }
    if pod.pointer("/securityContext/runAsUser").and_then(Value::as_u64).is_none_or(|user| user == 0) {
        faults.push("no user with a number that is not 0".to_owned());
    }
    for volume in pod["volumes"].as_array().unwrap() {
        // 288 is 0440: production refuses files that others can read.
        if volume["secret"]["defaultMode"] != 288 {
            faults.push(format!("{} is no secret with the mode 0440", volume["name"]));
        }
    }
    faults
}

#[test]
fn supply_03_kubernetes_pods_run_without_rights() {
    let manifests = manifests();
    let with_pods: Vec<_> = manifests.iter().filter(|manifest| manifest.pointer("/spec/template").is_some()).collect();
    let kinds: Vec<_> = with_pods.iter().map(|manifest| manifest["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Job", "Deployment"]);
    for manifest in with_pods {
        let pod = manifest.pointer("/spec/template/spec").unwrap();
        assert_eq!(faults(pod), Vec::<String>::new(), "{}", manifest["kind"]);
        // The check finds each weakened line.
        for (pointer, weaker) in [
            ("/automountServiceAccountToken", json!(true)),
            ("/securityContext/runAsNonRoot", json!(false)),
            ("/securityContext/runAsUser", json!(0)),
            ("/securityContext/seccompProfile/type", json!("Unconfined")),
            ("/containers/0/securityContext/readOnlyRootFilesystem", json!(false)),
            ("/containers/0/securityContext/capabilities/drop", json!([])),
            ("/containers/0/securityContext/capabilities", json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] })),
            ("/containers/0/resources/limits", json!({})),
            ("/volumes/0/secret/defaultMode", json!(292)),
            ("/volumes/0", json!({ "name": "host", "hostPath": { "path": "/" } })),
        ] {
            let mut pod = pod.clone();
            *pod.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = weaker;
            assert_ne!(faults(&pod), Vec::<String>::new(), "{pointer}");
        }
    }
    let [namespace] = of_kind(&manifests, "Namespace")[..] else { panic!("one namespace") };
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert!(
        of_kind(&manifests, "ServiceAccount").iter().all(|account| account["automountServiceAccountToken"] == false)
    );
    assert!(!of_kind(&manifests, "ServiceAccount").is_empty());
    assert!(of_kind(&manifests, "Secret").is_empty(), "secrets are not in the repository");
}

#[test]
fn supply_03_kubernetes_network_is_closed_by_default() {
    let manifests = manifests();
    let policies = of_kind(&manifests, "NetworkPolicy");
    let all = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    assert!(policies.iter().any(|policy| policy["spec"] == all), "no policy denies everything");
    let rules = |direction: &str, peers: &str| -> Vec<Value> {
        let rules = policies.iter().filter_map(|policy| policy["spec"][direction].as_array()).flatten();
        let rules: Vec<_> = rules.collect();
        assert!(rules.iter().all(|rule| rule[peers].is_array() && rule["ports"].is_array()), "{rules:#?}");
        rules.into_iter().flat_map(|rule| rule[peers].as_array().unwrap()).cloned().collect()
    };
    // No node and no address range: probes are commands in the container.
    assert!(rules("ingress", "from").iter().all(|peer| peer["namespaceSelector"].is_object()));
    for peer in rules("egress", "to").iter().filter(|peer| peer["ipBlock"]["cidr"] == "0.0.0.0/0") {
        assert_eq!(peer["ipBlock"]["except"], json!(["169.254.0.0/16"]), "the metadata service of a cloud");
    }
}

#[test]
fn supply_03_kubernetes_replicas_are_probed_and_replaced_one_by_one() {
    let manifests = manifests();
    let [deployment] = of_kind(&manifests, "Deployment")[..] else { panic!("one deployment") };
    let spec = &deployment["spec"];
    assert!(spec["replicas"].as_u64().unwrap() >= 2);
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({ "maxUnavailable": 0, "maxSurge": 1 }));
    let container = spec.pointer("/template/spec/containers/0").unwrap();
    let live = json!(["/service", "health", "--live"]);
    for (probe, command) in
        [("startupProbe", &live), ("livenessProbe", &live), ("readinessProbe", &json!(["/service", "health"]))]
    {
        assert_eq!(container[probe]["exec"]["command"], *command, "{probe}");
        // The command itself ends after three seconds.
        assert!(container[probe]["timeoutSeconds"].as_u64().unwrap() > 3, "{probe}");
    }
    let [budget] = of_kind(&manifests, "PodDisruptionBudget")[..] else { panic!("one disruption budget") };
    assert_eq!(budget["spec"]["selector"], spec["selector"]);
}

/// Names of variables whose value is a secret. With `_FILE` the value is a path.
fn is_secret(variable: &str) -> bool {
    let is_file = variable.ends_with("_FILE") || variable.ends_with("_PATH");
    !is_file
        && ["PASSWORD", "SECRET", "TOKEN", "MAC_KEY", "PEPPER", "KEYS__", "_URL"]
            .iter()
            .any(|word| variable.contains(word))
}

/// Fails on a variable that is no setting, or has a secret.
fn check_variables<'v>(origin: &str, variables: impl Iterator<Item = &'v str>) {
    let public = ["APP_HTTP__PUBLIC_URL", "KC_DB_URL", "GF_SERVER_ROOT_URL"];
    let mut count = 0;
    for name in variables {
        count += 1;
        assert!(public.contains(&name) || !is_secret(name), "{origin}: {name} is a secret; name a file");
        let setting = name.trim_end_matches("_FILE");
        assert!(!name.starts_with("APP_") || is_setting(setting), "{origin}: there is no setting {setting}");
    }
    assert!(count > 0, "{origin} has no variables");
}

#[test]
fn supply_03_secrets_of_deployments_are_files() {
    let settings = read("deploy/kubernetes/service/settings.env");
    let names = settings.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap().0);
    check_variables("settings.env", names);
    for manifest in manifests() {
        let Some(pod) = manifest.pointer("/spec/template/spec") else { continue };
        let variables = pod["containers"][0]["env"].as_array();
        if let Some(variables) = variables {
            check_variables("kubernetes", variables.iter().map(|variable| variable["name"].as_str().unwrap()));
        }
    }
    let compose = &documents("deploy/compose.yaml")[0];
    for (name, service) in compose["services"].as_object().unwrap() {
        if let Some(variables) = service["environment"].as_object() {
            check_variables(name, variables.keys().map(String::as_str));
        }
    }
    for secret in ["APP_SECRETS__MAC_KEY", "APP_DATABASE__OWNER_URL", "POSTGRES_PASSWORD", "APP_KEYS__MASTER"] {
        assert!(is_secret(secret) && !is_secret(&format!("{secret}_FILE")), "{secret}");
    }
}

#[test]
fn supply_03_compose_containers_have_no_rights_and_one_open_port() {
    let compose = &documents("deploy/compose.yaml")[0];
    for (name, service) in compose["services"].as_object().unwrap() {
        // YAML merges the anchor below the service's own lines.
        let setting = |key: &str| service.get(key).or_else(|| service["<<"].get(key)).cloned().unwrap_or_default();
        assert_eq!(setting("cap_drop"), json!(["ALL"]), "{name}");
        assert_eq!(setting("security_opt"), json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(setting("read_only"), json!(name != "keycloak"), "{name}");
        assert!(setting("privileged").is_null() && setting("network_mode") != "host", "{name}");
        let image = setting("image");
        let image = image.as_str().unwrap();
        assert!(image == "${API_IMAGE:-api}" || image.contains("_IMAGE:?"), "{name}: {image}");
        let ports = if name == "proxy" { json!(["127.0.0.1:8443:8443"]) } else { Value::Null };
        assert_eq!(setting("ports"), ports, "{name}");
        let volumes = setting("volumes").to_string();
        assert!(!volumes.contains("docker.sock"), "{name}");
        // One container writes secrets; each other reads its own.
        if name != "secrets" {
            let secrets: Vec<_> = volumes.matches("-secrets:").collect();
            assert!(
                secrets.len() <= 1 && volumes.matches("-secrets:/run/secrets:ro").count() == secrets.len(),
                "{name}"
            );
        }
    }
    let api = &compose["services"]["api"];
    assert!(api.get("user").is_none() && api.get("cap_add").is_none(), "the image has its user");
    for network in ["data", "telemetry"] {
        assert_eq!(compose["networks"][network]["internal"], true, "{network}");
    }
}

#[test]
fn supply_03_image_has_a_user_and_no_shell_of_its_own() {
    let text = read("Dockerfile").replace("\\\n", "");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let bases: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases, ["${BUILD_IMAGE} AS build", "${RUNTIME_IMAGE}"]);
    // Without a default: the release names both by digest.
    assert!(lines.contains(&"ARG BUILD_IMAGE") && lines.contains(&"ARG RUNTIME_IMAGE"));
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let (_, stage) = lines.split_at(last);
    let instruction = |name: &str| stage.iter().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
    assert_eq!(instruction("USER "), ["65532:65532"]);
    assert_eq!(instruction("COPY "), ["--from=build /out/service /service"]);
    assert_eq!(instruction("ENTRYPOINT "), [r#"["/service"]"#]);
    assert!(instruction("HEALTHCHECK ")[0].ends_with(r#"CMD ["/service", "health"]"#));
    for absent in ["RUN ", "ADD ", "ENV ", "SHELL ", "VOLUME "] {
        assert!(instruction(absent).is_empty(), "{absent}");
    }
}

#[test]
fn supply_03_systemd_unit_is_confined() {
    let unit = read("deploy/systemd/api.service");
    for line in [
        "User=api",
        "NoNewPrivileges=true",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=true",
        "PrivateDevices=true",
        "PrivateTmp=true",
        "PrivateUsers=true",
        "MemoryDenyWriteExecute=true",
        "RestrictNamespaces=true",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    assert!(!unit.lines().any(|line| line.starts_with("Environment=")), "secrets are files");
}
