package kubeconfig_test

import (
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/virtualcluster-io/virtualcluster/internal/kubeconfig"
)

func TestRESTConfigRefusesWhatIsNotSafe(t *testing.T) {
	cases := map[string]struct {
		change func(*clientcmdapi.Config)
		want   string // a part of the error; empty means accepted
	}{
		"Token":           {change: func(*clientcmdapi.Config) {}},
		"OtherContextBad": {change: func(c *clientcmdapi.Config) { c.AuthInfos["other"] = &clientcmdapi.AuthInfo{TokenFile: "/etc/passwd"} }},
		"Program":         {change: func(c *clientcmdapi.Config) { c.AuthInfos["u"].Exec = &clientcmdapi.ExecConfig{Command: "sh"} }, want: "runs a program"},
		"AuthProvider": {change: func(c *clientcmdapi.Config) {
			c.AuthInfos["u"].AuthProvider = &clientcmdapi.AuthProviderConfig{Name: "oidc"}
		}, want: "runs a program"},
		"TokenFile":      {change: func(c *clientcmdapi.Config) { c.AuthInfos["u"].TokenFile = "/var/run/secrets/token" }, want: "names a file"},
		"ClientCertFile": {change: func(c *clientcmdapi.Config) { c.AuthInfos["u"].ClientCertificate = "/tls.crt" }, want: "names a file"},
		"ClientKeyFile":  {change: func(c *clientcmdapi.Config) { c.AuthInfos["u"].ClientKey = "/tls.key" }, want: "names a file"},
		"CAFile":         {change: func(c *clientcmdapi.Config) { c.Clusters["c"].CertificateAuthority = "/ca.crt" }, want: "names a file"},
		"Insecure":       {change: func(c *clientcmdapi.Config) { c.Clusters["c"].InsecureSkipTLSVerify = true }, want: "skips the verification"},
		"Proxy":          {change: func(c *clientcmdapi.Config) { c.Clusters["c"].ProxyURL = "http://10.0.0.1:3128" }, want: "names a proxy"},
		"Plaintext":      {change: func(c *clientcmdapi.Config) { c.Clusters["c"].Server = "http://example.org" }, want: "not a plain URL"},
		"NoScheme":       {change: func(c *clientcmdapi.Config) { c.Clusters["c"].Server = "example.org:6443" }, want: "not a plain URL"},
		"NoServer":       {change: func(c *clientcmdapi.Config) { c.Clusters["c"].Server = "" }, want: "not a plain URL"},
		"PasswordInURL":  {change: func(c *clientcmdapi.Config) { c.Clusters["c"].Server = "https://a:b@example.org" }, want: "not a plain URL"},
		"NoContext":      {change: func(c *clientcmdapi.Config) { c.CurrentContext = "" }, want: "no current context"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config := clientcmdapi.NewConfig()
			config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://example.org"}
			config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "t"}
			config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
			config.CurrentContext = "x"
			tc.change(config)
			data, err := clientcmd.Write(*config)
			if err != nil {
				t.Fatalf("Write: %v", err)
			}
			_, err = kubeconfig.RESTConfig(data)
			if tc.want == "" {
				if err != nil {
					t.Errorf("RESTConfig: got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("RESTConfig: got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := kubeconfig.RESTConfig([]byte("{not yaml")); err == nil {
		t.Error("RESTConfig accepted garbage")
	}
}
